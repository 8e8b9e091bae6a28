//! What the tables hold of ours, in words for people and in JSON for programs.

use std::fmt;

use seaway_model::Family;
use serde::Serialize;

use super::plan::Chains;
use super::render;
use super::rule::Table;
use super::tool::Tool;

/// All rules of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    pub(super) tools: Vec<HeldByTool>,
    /// Variants with rules of ours that belong elsewhere, to be removed.
    pub(super) leftovers: Vec<&'static str>,
}

/// What one program shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HeldByTool {
    tool: &'static str,
    family: Family,
    /// Which it keeps for us.
    tables: Vec<&'static str>,
    #[serde(skip)]
    state: State,
    chains: Vec<HeldChain>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct HeldChain {
    table: &'static str,
    chain: String,
    rules: Vec<String>,
}

/// Against what the data plane has been told to bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It has not been told anything.
    AsFound,
    AsWanted,
    NotAsWanted(String),
}

impl Held {
    /// Whether there is any chain but built-in ones.
    pub fn has_chains_of_ours(&self) -> bool {
        let chains = self.tools.iter().flat_map(|tool| &tool.chains);
        chains
            .into_iter()
            .any(|chain| super::rule::is_ours(&chain.chain))
    }
}

impl HeldByTool {
    pub(super) fn new(tool: Tool, tables: &[Table], state: State, chains: &Chains) -> Self {
        let chains = chains.iter().map(|(id, rules)| HeldChain {
            table: id.table.as_str(),
            chain: id.name.as_str().to_owned(),
            rules: rules
                .iter()
                .map(|rule| render::rule(rule, tool.family))
                .collect(),
        });
        Self {
            tool: tool.name(),
            family: tool.family,
            tables: tables.iter().map(|table| table.as_str()).collect(),
            state,
            chains: chains.collect(),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tool in &self.tools {
            write!(f, "{tool}")?;
        }
        self.leftovers.iter().try_for_each(|variant| {
            writeln!(
                f,
                "# {variant} variant: rules of ours that belong elsewhere, to be removed"
            )
        })
    }
}

impl fmt::Display for HeldByTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# {}", self.tool)?;
        if let [table] = self.tables[..] {
            write!(f, ", table {table}")?;
        }
        let rules: usize = self.chains.iter().map(|chain| chain.rules.len()).sum();
        let chains = self.chains.len();
        writeln!(f, ": {chains} chains, {rules} rules, {}", self.state)?;
        for HeldChain {
            table,
            chain,
            rules,
        } in &self.chains
        {
            for rule in rules {
                writeln!(f, "{table} {chain} {rule}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsFound => f.write_str("as found"),
            Self::AsWanted => f.write_str("as wanted"),
            Self::NotAsWanted(difference) => write!(f, "not as wanted: {difference}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use seaway_kernel::capabilities::IptablesVariant;

    use super::*;
    use crate::iptables::parse;

    #[test]
    fn for_people_and_for_programs() {
        let saved = "*nat
:PREROUTING ACCEPT [0:0]
:SEAWAY-SERVICES - [0:0]
-A PREROUTING -j SEAWAY-SERVICES
COMMIT
";
        let tool = Tool {
            family: Family::V4,
            variant: IptablesVariant::NfTables,
        };
        let tables = [Table::Nat];
        let found = |saved: &str| Held {
            tools: vec![HeldByTool::new(
                tool,
                &tables,
                State::AsFound,
                &parse::saved_in(saved, tool.family, &tables),
            )],
            leftovers: vec!["legacy"],
        };
        let held = found(saved);
        assert!(held.has_chains_of_ours());
        assert!(!found("").has_chains_of_ours());
        expect![[r#"
            # iptables-nft, table nat: 2 chains, 1 rules, as found
            nat PREROUTING -j SEAWAY-SERVICES
            # legacy variant: rules of ours that belong elsewhere, to be removed
        "#]]
        .assert_eq(&held.to_string());
        expect![[r#"
            {
              "tools": [
                {
                  "tool": "iptables-nft",
                  "family": "IPv4",
                  "tables": [
                    "nat"
                  ],
                  "chains": [
                    {
                      "table": "nat",
                      "chain": "PREROUTING",
                      "rules": [
                        "-j SEAWAY-SERVICES"
                      ]
                    },
                    {
                      "table": "nat",
                      "chain": "SEAWAY-SERVICES",
                      "rules": []
                    }
                  ]
                }
              ],
              "leftovers": [
                "legacy"
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&held).unwrap());
    }
}
