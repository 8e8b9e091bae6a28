//! The programs: `iptables-save`, `iptables-restore`, in both variants and families.

use std::path::Path;
use std::time::Duration;

use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{Command, CommandError, Output};
use seaway_model::Family;

use super::plan::Settings;
use super::rule::Table;
use super::selftest::{self, Need};
use super::xlock;
use crate::dataplane::ApplyError;

#[cfg(test)]
mod tests;

/// Seconds that the tool waits for another one to leave the tables alone (legacy variant only).
const LOCK_WAIT_SECONDS: &str = "5";

/// A first sync of thousands of Services takes minutes in the nft variant of iptables 1.8.9.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Who holds the lock of the legacy variant while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// We do, and the program locks nothing: iptables 1.8.3 or newer.
    Ours,
    /// The program itself.
    Its,
}

/// The programs of one family in one variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    pub family: Family,
    pub variant: IptablesVariant,
}

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

    /// The rules of one table, which is loaded if it is not yet, or of all that are loaded.
    pub async fn save_tables(self, tables: &[Table]) -> Result<String, ApplyError> {
        let mut command = Command::new(self.program("save"));
        // It takes one table or all.
        if let [table] = tables {
            command = command.args(["-t", table.as_str()]);
        }
        self.run("save", command).await
    }

    /// Tells the kernel. All or nothing within a table. Returns how long others kept the lock.
    pub async fn restore(self, input: &str, locking: Locking) -> Result<Duration, ApplyError> {
        let mut command = Command::new(self.program("restore"))
            .args(["--noflush", "--wait", LOCK_WAIT_SECONDS])
            .stdin(input);
        let mut waited = Duration::ZERO;
        let mut held = None;
        if self.variant == IptablesVariant::Legacy {
            held = xlock::take(Path::new(xlock::PATH), xlock::LIMIT).await?;
            waited = held.as_ref().map_or(Duration::ZERO, |held| held.waited);
            match locking {
                Locking::Ours if held.is_some() => {
                    command = command.env(xlock::VARIABLE, xlock::NOBODYS);
                }
                // The program takes it once more, right away.
                _ => held = None,
            }
        }
        let result = self.run("restore", command).await;
        drop(held);
        result.map(|_| waited).map_err(|error| match error {
            ApplyError::Failed { what, reason } => ApplyError::Refused {
                family: self.family,
                what,
                reason: point_at_line(&reason, input),
            },
            missing => missing,
        })
    }

    /// Puts one rule of each kind that these tables need into a chain of no use and takes it out again; the error names
    /// those that were refused.
    pub async fn try_rules(
        self,
        tables: &[Table],
        settings: &Settings,
        locking: Locking,
    ) -> Result<(), ApplyError> {
        let mut needs = selftest::needs(self.family, settings.random_fully);
        needs.retain(|need| tables.contains(&need.table));
        let trial =
            |needs: &[Need]| selftest::trial(needs, self.family) + &selftest::removal(tables);
        let Err(error) = self.restore(&trial(&needs), locking).await else {
            return Ok(());
        };
        let mut refused = Vec::new();
        for need in needs {
            match self
                .restore(&trial(std::slice::from_ref(&need)), locking)
                .await
            {
                Ok(_) => {}
                Err(ApplyError::Refused { reason, .. }) => refused.push((need, reason)),
                Err(missing) => return Err(missing),
            }
        }
        // The first table of a trial may be there although the second was refused.
        self.restore(&selftest::removal(tables), locking).await?;
        if refused.is_empty() {
            return Err(error);
        }
        Err(ApplyError::Missing {
            what: format!("support of {} for our rules", self.name()),
            remedy: format!(
                "load or build the kernel modules, or use --mode ebpf: {}",
                selftest::complaint(&refused)
            ),
        })
    }

    /// Whether the program lets us hold the lock for it. Changes nothing.
    pub async fn locking(self) -> Result<Locking, ApplyError> {
        if self.variant != IptablesVariant::Legacy {
            return Ok(Locking::Its);
        }
        let Some(held) = xlock::take(Path::new(xlock::PATH), xlock::LIMIT).await? else {
            return Ok(Locking::Its);
        };
        // Without `--wait` it gives up at once where it wants the lock that we hold.
        let command = Command::new(self.program("restore"))
            .args(["--noflush", "--test"])
            .env(xlock::VARIABLE, xlock::NOBODYS)
            .stdin("*filter\nCOMMIT\n");
        let answer = self.run("restore", command).await;
        drop(held);
        Ok(if answer.is_ok() {
            Locking::Ours
        } else {
            Locking::Its
        })
    }

    /// The program of a verb, as `iptables-nft-save`.
    pub fn program(self, verb: &str) -> String {
        format!("{}-{verb}", self.name())
    }

    async fn run(self, verb: &str, command: Command) -> Result<String, ApplyError> {
        let result = command.timeout(TIMEOUT).output().await;
        result.map(Output::into_text).map_err(|error| match error {
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
