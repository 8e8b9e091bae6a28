//! The programs: `iptables-save`, `iptables-restore`, and which of their two variants a node uses.

use std::time::Duration;

use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{Command, CommandError};
use seaway_model::Family;
use seaway_model::ownership::CHAIN_PREFIX;

use super::transaction::Transaction;
use crate::dataplane::ApplyError;

#[cfg(test)]
mod tests;

/// Seconds that the tool waits for another one to leave the tables alone (legacy variant only).
const LOCK_WAIT_SECONDS: &str = "5";

/// A first sync of thousands of Services takes minutes in the nft variant of iptables 1.8.9.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Chains by which the kubelet says which variant the node uses (KEP-3178).
const KUBELET_HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];

/// The programs of one family in one variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    pub family: Family,
    pub variant: IptablesVariant,
}

/// Both variants, the newer first.
pub const VARIANTS: [IptablesVariant; 2] = [IptablesVariant::NfTables, IptablesVariant::Legacy];

impl Tool {
    /// The tool's name without its verb, as `ip6tables-nft`.
    pub fn name(self) -> &'static str {
        match (self.family, self.variant) {
            (Family::V4, IptablesVariant::NfTables) => "iptables-nft",
            (Family::V4, IptablesVariant::Legacy) => "iptables-legacy",
            (Family::V6, IptablesVariant::NfTables) => "ip6tables-nft",
            (Family::V6, IptablesVariant::Legacy) => "ip6tables-legacy",
        }
    }

    /// The rules of all tables that are loaded; loads none. `None` when the program is not installed.
    pub async fn save_if_installed(self) -> Result<Option<String>, ApplyError> {
        match self.run("save", Command::new(self.program("save"))).await {
            Ok(text) => Ok(Some(text)),
            Err(ApplyError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The rules of all tables that are loaded; loads none.
    pub async fn save(self) -> Result<String, ApplyError> {
        self.run("save", Command::new(self.program("save"))).await
    }

    /// Tells the kernel. All or nothing within a table.
    pub async fn restore(self, transaction: &Transaction) -> Result<(), ApplyError> {
        let command = Command::new(self.program("restore"))
            .args(["--noflush", "--wait", LOCK_WAIT_SECONDS])
            .stdin(transaction.as_str());
        let result = self.run("restore", command).await;
        result.map(drop).map_err(|error| match error {
            ApplyError::Failed { what, reason } => ApplyError::Failed {
                what,
                reason: point_at_line(&reason, transaction.as_str()),
            },
            missing => missing,
        })
    }

    fn program(self, verb: &str) -> String {
        format!("{}-{verb}", self.name())
    }

    async fn run(self, verb: &str, command: Command) -> Result<String, ApplyError> {
        let result = command.timeout(TIMEOUT).output().await;
        result
            .map(|output| output.text())
            .map_err(|error| match error {
                CommandError::Missing { program } => ApplyError::Missing {
                    what: program,
                    remedy: "install the iptables package (1.8 or newer) or use --mode ebpf".into(),
                },
                CommandError::Failed { stderr, .. } => ApplyError::Failed {
                    what: self.program(verb),
                    reason: stderr.trim().to_owned(),
                },
                other => ApplyError::Failed {
                    what: self.program(verb),
                    reason: other.to_string(),
                },
            })
    }
}

/// Adds the line that the tool complains of: it says `line 7` and not what stands there.
fn point_at_line(reason: &str, input: &str) -> String {
    let number = reason
        .split("line")
        .skip(1)
        .find_map(|rest| {
            let digits = rest.trim_start_matches([':', ' ']);
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            digits[..end].parse::<usize>().ok()
        })
        .and_then(|number| number.checked_sub(1));
    match number.and_then(|index| input.lines().nth(index)) {
        Some(line) => format!("{reason} — that line is: {line}"),
        None => reason.to_owned(),
    }
}

/// Which variant a node uses, from what both variants of all families have saved. The kubelet's hint counts first,
/// then rules of our own, then which one has more rules, as `iptables-wrappers` decides for kube-proxy's image.
pub fn choose(
    saved: &[(IptablesVariant, String)],
    default: Option<IptablesVariant>,
) -> Option<IptablesVariant> {
    let installed = |variant: IptablesVariant| saved.iter().any(|(v, _)| *v == variant);
    let with = |wanted: &dyn Fn(&str) -> bool| {
        VARIANTS.into_iter().find(|variant| {
            let mut texts = saved.iter().filter(|(v, _)| v == variant);
            texts.any(|(_, text)| text.lines().any(wanted))
        })
    };
    let rules = |variant| {
        let texts = saved.iter().filter(|(v, _)| *v == variant);
        texts
            .flat_map(|(_, text)| text.lines())
            .filter(|line| line.starts_with('-'))
            .count()
    };
    let own = format!(":{CHAIN_PREFIX}");
    with(&|line| KUBELET_HINTS.iter().any(|hint| line.starts_with(hint)))
        .or_else(|| with(&|line| line.starts_with(&own)))
        .or_else(|| {
            let (nft, legacy) = (
                rules(IptablesVariant::NfTables),
                rules(IptablesVariant::Legacy),
            );
            match nft.cmp(&legacy) {
                std::cmp::Ordering::Greater => Some(IptablesVariant::NfTables),
                std::cmp::Ordering::Less => Some(IptablesVariant::Legacy),
                std::cmp::Ordering::Equal => None,
            }
        })
        .or(default.filter(|variant| installed(*variant)))
        .or_else(|| VARIANTS.into_iter().find(|variant| installed(*variant)))
}
