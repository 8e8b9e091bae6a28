//! A chain of ours in the tables of iptables, and the jump to it: one a family, never rules per pod.

use std::fmt::{self, Write};

use seaway_kernel::{Command, CommandError, Nftables};
use seaway_model::Family;
use seaway_model::ownership::{CHAIN_EGRESS, CHAIN_POD_FORWARD};

/// How long to wait for the xtables lock.
const WAIT_SECONDS: &str = "10";

/// Where a chain of ours is, in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    family: Family,
    table: &'static str,
    name: &'static str,
    /// The chain of iptables that ends with the jump.
    hook: &'static str,
}

/// A chain as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub place: Place,
    /// In the words of `iptables -S`, in order, without the chain. There is no chain without rules.
    pub rules: Vec<String>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// None if there is no such chain.
    pub rules: Option<Vec<String>>,
    /// How often the hook jumps to it.
    pub jumps: usize,
}

impl Place {
    /// For what leaves the cluster.
    pub const fn egress(family: Family) -> Self {
        Self {
            family,
            table: "nat",
            name: CHAIN_EGRESS,
            hook: "POSTROUTING",
        }
    }

    /// For what pods send and get.
    pub const fn forward(family: Family) -> Self {
        Self {
            family,
            table: "filter",
            name: CHAIN_POD_FORWARD,
            hook: "FORWARD",
        }
    }

    /// All that there may be on a node.
    pub fn all() -> impl Iterator<Item = Self> {
        let families = [Family::V4, Family::V6];
        families
            .into_iter()
            .flat_map(|family| [Self::egress(family), Self::forward(family)])
    }

    /// The input of `iptables-restore` that removes everything; `None` if nothing is there.
    fn removal(&self, seen: &Seen) -> Option<String> {
        if *seen == Seen::default() {
            return None;
        }
        let mut text = format!("*{}\n", self.table);
        for _ in 0..seen.jumps {
            let _ = writeln!(text, "-D {}", self.jump());
        }
        if seen.rules.is_some() {
            let _ = writeln!(text, "-F {0}\n-X {0}", self.name);
        }
        text.push_str("COMMIT\n");
        Some(text)
    }

    fn jump(&self) -> String {
        format!("{} -j {}", self.hook, self.name)
    }

    /// Reads what is there.
    pub async fn observe(&self) -> Result<Seen, CommandError> {
        let prefix = format!("-A {} ", self.name);
        let rules = self.list(self.name).await?.map(|lines| {
            lines
                .iter()
                .filter_map(|line| line.strip_prefix(&prefix))
                .map(str::to_owned)
                .collect()
        });
        let wanted = format!("-A {}", self.jump());
        let hook = self.list(self.hook).await?.unwrap_or_default();
        Ok(Seen {
            rules,
            jumps: hook.iter().filter(|line| **line == wanted).count(),
        })
    }

    /// Whether nftables has the chain: for where iptables itself, whose nft variant keeps it there, is not found. What the legacy
    /// variant has cannot be seen without it.
    pub fn is_in_nftables(&self) -> bool {
        let chains = Nftables::open().and_then(|mut nft| nft.chains(self.family == Family::V6));
        // A kernel without nftables has none.
        chains.is_ok_and(|chains| chains.iter().any(|(_, chain)| chain == self.name))
    }

    /// Feeds `iptables-restore`; one transaction.
    async fn restore(&self, input: &str) -> Result<(), CommandError> {
        tracing::info!(family = ?self.family, "iptables-restore:\n{}", input.trim_end());
        Command::new(format!("{}-restore", self.program()))
            .args(["--noflush", "--wait", WAIT_SECONDS])
            .stdin(input)
            .output()
            .await
            .map(drop)
    }

    /// Removes the chain; answers whether there was one.
    pub async fn remove(&self) -> Result<bool, CommandError> {
        match self.removal(&self.observe().await?) {
            None => Ok(false),
            Some(input) => self.restore(&input).await.map(|()| true),
        }
    }

    /// The rules of one chain; `None` if there is no such chain (exit code 1).
    async fn list(&self, chain: &str) -> Result<Option<Vec<String>>, CommandError> {
        let output = Command::new(self.program())
            .args(["-w", WAIT_SECONDS, "-t", self.table, "-S", chain])
            .output()
            .await;
        match output {
            Ok(output) => Ok(Some(output.text().lines().map(str::to_owned).collect())),
            Err(CommandError::Failed { status, .. }) if status.code() == Some(1) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn program(&self) -> &'static str {
        match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} ({:?})", self.name, self.family)
    }
}

impl Chain {
    /// The input of `iptables-restore --noflush` that makes it so; `None` if it is so. The jump comes last: what others say
    /// before it counts.
    fn changes(&self, seen: &Seen) -> Option<String> {
        if seen.rules.as_ref() == Some(&self.rules) && seen.jumps == 1 {
            return None;
        }
        let Place { table, name, .. } = self.place;
        let mut text = format!("*{table}\n:{name} - [0:0]\n");
        for rule in &self.rules {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "-A {name} {rule}");
        }
        for _ in 1..seen.jumps {
            let _ = writeln!(text, "-D {}", self.place.jump());
        }
        if seen.jumps == 0 {
            let _ = writeln!(text, "-A {}", self.place.jump());
        }
        text.push_str("COMMIT\n");
        Some(text)
    }

    /// Brings it up to date; answers whether anything had to be changed.
    pub async fn sync(&self) -> Result<bool, CommandError> {
        if self.rules.is_empty() {
            return self.place.remove().await;
        }
        let seen = self.place.observe().await?;
        match self.changes(&seen) {
            None => Ok(false),
            Some(input) => self.place.restore(&input).await.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        let rules = [
            "-d 10.244.0.0/16 -j RETURN",
            "-s 10.244.1.0/24 -j MASQUERADE",
        ];
        Chain {
            place: Place::egress(Family::V4),
            rules: rules.map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn the_chain_is_written_whole() {
        expect_test::expect![[r#"
            *nat
            :SEAWAY-EGRESS - [0:0]
            -A SEAWAY-EGRESS -d 10.244.0.0/16 -j RETURN
            -A SEAWAY-EGRESS -s 10.244.1.0/24 -j MASQUERADE
            -A POSTROUTING -j SEAWAY-EGRESS
            COMMIT
        "#]]
        .assert_eq(&chain().changes(&Seen::default()).unwrap());
    }

    #[test]
    fn what_is_right_stays_and_surplus_jumps_go() {
        let mut seen = Seen {
            rules: Some(chain().rules),
            jumps: 1,
        };
        assert_eq!(chain().changes(&seen), None);
        seen.jumps = 3;
        let changes = chain().changes(&seen).unwrap();
        assert_eq!(changes.matches("-D POSTROUTING").count(), 2);
        let place = chain().place;
        assert_eq!(place.removal(&Seen::default()), None);
        let removal = place.removal(&seen).unwrap();
        assert_eq!(removal.matches("-D POSTROUTING").count(), 3);
        assert!(removal.contains("-X SEAWAY-EGRESS"));
    }
}
