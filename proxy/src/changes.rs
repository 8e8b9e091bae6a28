//! What a plan changes, table by table: `plan --diff` for people, `plan --json` for programs. Pure.

use std::fmt;

use seaway_model::Family;
use serde::{Serialize, Serializer};
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// What a plan changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What has to be done to the kernel besides entries of tables: programs to load and attach.
    pub steps: Vec<String>,
    pub tables: Vec<TableChange>,
    /// What cannot be done as it is wanted.
    pub notices: Vec<String>,
}

/// What changes in a chain or in a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableChange {
    #[serde(flatten)]
    pub place: Place,
    #[serde(flatten, serialize_with = "by_sign")]
    pub lines: Vec<Line>,
}

/// Where something changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    Chain {
        family: Family,
        table: &'static str,
        chain: String,
        /// What becomes of the chain itself.
        state: ChainState,
    },
    Map {
        map: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChainState {
    New,
    Kept,
    Gone,
}

/// A rule or an entry that goes or comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Removed(String),
    Added(String),
}

impl Changes {
    /// Whether the kernel has everything already.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.tables.is_empty()
    }

    /// The same with what another plan changes besides.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self.tables.extend(other.tables);
        self.notices.extend(other.notices);
        self
    }

    fn count(&self, wanted: impl Fn(&Line) -> bool) -> usize {
        let lines = self.tables.iter().flat_map(|table| &table.lines);
        lines.filter(|line| wanted(line)).count()
    }
}

/// With the sums, so that a script need not count.
impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Summed<'a> {
            in_sync: bool,
            removed: usize,
            added: usize,
            steps: &'a [String],
            changes: &'a [TableChange],
            notices: &'a [String],
        }
        Summed {
            in_sync: self.is_empty(),
            removed: self.count(|line| matches!(line, Line::Removed(_))),
            added: self.count(|line| matches!(line, Line::Added(_))),
            steps: &self.steps,
            changes: &self.tables,
            notices: &self.notices,
        }
        .serialize(serializer)
    }
}

fn by_sign<S: Serializer>(lines: &[Line], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Default, Serialize)]
    struct Signed<'a> {
        removed: Vec<&'a str>,
        added: Vec<&'a str>,
    }
    let mut signed = Signed::default();
    for line in lines {
        match line {
            Line::Removed(text) => signed.removed.push(text),
            Line::Added(text) => signed.added.push(text),
        }
    }
    signed.serialize(serializer)
}

impl TableChange {
    /// What changes in a chain; `None`: it is not there. Nothing if it stays as it is.
    pub fn of_chain<R: Ord + std::hash::Hash>(
        (family, table, chain): (Family, &'static str, &str),
        before: Option<&[R]>,
        after: Option<&[R]>,
        show: impl Fn(&R) -> String,
    ) -> Option<Self> {
        let state = match (before, after) {
            (None, None) => return None,
            (None, Some(_)) => ChainState::New,
            (Some(_), None) => ChainState::Gone,
            (Some(_), Some(_)) => ChainState::Kept,
        };
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let mut lines = Vec::new();
        for change in capture_diff_slices(Algorithm::Myers, before, after) {
            if matches!(change, DiffOp::Equal { .. }) {
                continue;
            }
            let gone = before[change.old_range()].iter();
            lines.extend(gone.map(|rule| Line::Removed(show(rule))));
            let come = after[change.new_range()].iter();
            lines.extend(come.map(|rule| Line::Added(show(rule))));
        }
        let place = Place::Chain {
            family,
            table,
            chain: chain.to_owned(),
            state,
        };
        (state != ChainState::Kept || !lines.is_empty()).then_some(Self { place, lines })
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        for step in &self.steps {
            writeln!(f, "! {step}")?;
        }
        for TableChange { place, lines } in &self.tables {
            writeln!(f, "{place}")?;
            for line in lines {
                match line {
                    Line::Removed(text) => writeln!(f, "  - {text}")?,
                    Line::Added(text) => writeln!(f, "  + {text}")?,
                }
            }
        }
        for notice in &self.notices {
            writeln!(f, "# {notice}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain {
                family,
                table,
                chain,
                state,
            } => {
                let family = match family {
                    Family::V4 => "ipv4",
                    Family::V6 => "ipv6",
                };
                let state = match state {
                    ChainState::New => ", which is new",
                    ChainState::Kept => "",
                    ChainState::Gone => ", which goes",
                };
                write!(f, "{family} {table} {chain}{state}")
            }
            Self::Map { map } => f.write_str(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn chain(name: &str, before: Option<&[&str]>, after: Option<&[&str]>) -> Option<TableChange> {
        let place = (Family::V4, "nat", name);
        TableChange::of_chain(place, before, after, ToString::to_string)
    }

    fn changes() -> Changes {
        let of_maps = Changes {
            steps: vec!["load the programs".into()],
            tables: vec![TableChange {
                place: Place::Map { map: "frontends" },
                lines: vec![Line::Added("10.96.0.10:80/tcp ClusterIP -> reject".into())],
            }],
            notices: vec!["default/a: 10.96.0.10:80/tcp belongs to default/b".into()],
        };
        of_maps.and(Changes {
            tables: [
                chain(
                    "SEAWAY-A",
                    Some(&["1", "2", "3", "4"]),
                    Some(&["1", "x", "3"]),
                ),
                chain("SEAWAY-AS-IT-IS", Some(&["1"]), Some(&["1"])),
                chain("SEAWAY-NEW", None, Some(&["1"])),
                chain("SEAWAY-OLD", Some(&[]), None),
            ]
            .into_iter()
            .flatten()
            .collect(),
            ..Changes::default()
        })
    }

    #[test]
    fn for_people() {
        expect![[r#"
            ! load the programs
            frontends
              + 10.96.0.10:80/tcp ClusterIP -> reject
            ipv4 nat SEAWAY-A
              - 2
              + x
              - 4
            ipv4 nat SEAWAY-NEW, which is new
              + 1
            ipv4 nat SEAWAY-OLD, which goes
            # default/a: 10.96.0.10:80/tcp belongs to default/b
        "#]]
        .assert_eq(&changes().to_string());
        assert_eq!(Changes::default().to_string(), "nothing to do\n");
    }

    #[test]
    fn for_programs() {
        let json = |changes: &Changes| serde_json::to_string_pretty(changes).unwrap();
        expect![[r#"
            {
              "inSync": false,
              "removed": 2,
              "added": 3,
              "steps": [
                "load the programs"
              ],
              "changes": [
                {
                  "map": "frontends",
                  "removed": [],
                  "added": [
                    "10.96.0.10:80/tcp ClusterIP -> reject"
                  ]
                },
                {
                  "family": "IPv4",
                  "table": "nat",
                  "chain": "SEAWAY-A",
                  "state": "kept",
                  "removed": [
                    "2",
                    "4"
                  ],
                  "added": [
                    "x"
                  ]
                },
                {
                  "family": "IPv4",
                  "table": "nat",
                  "chain": "SEAWAY-NEW",
                  "state": "new",
                  "removed": [],
                  "added": [
                    "1"
                  ]
                },
                {
                  "family": "IPv4",
                  "table": "nat",
                  "chain": "SEAWAY-OLD",
                  "state": "gone",
                  "removed": [],
                  "added": []
                }
              ],
              "notices": [
                "default/a: 10.96.0.10:80/tcp belongs to default/b"
              ]
            }"#]]
        .assert_eq(&json(&changes()));
        expect![[r#"
            {
              "inSync": true,
              "removed": 0,
              "added": 0,
              "steps": [],
              "changes": [],
              "notices": []
            }"#]]
        .assert_eq(&json(&Changes::default()));
    }
}
