//! The steps of a change of mode, and the way back when one fails.

use seaway_model::{Change, Desired};

use super::Teller;
use crate::companion::Share;
use crate::dataplane::{ApplyError, Dataplane};
use crate::ebpf::{Adoption, EbpfDataplane, HandBack};
use crate::iptables::IptablesDataplane;

/// What came of a change of mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Flows that went over.
    pub flows: usize,
    /// Flows that did not, by the reason why. They go on where they are.
    pub left: Vec<(String, usize)>,
}

/// Why the mode is still the old one.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The old mode is in force as before.
    #[error("cannot {step}: {cause}; the mode is as it was")]
    RolledBack {
        step: &'static str,
        cause: ApplyError,
    },
    /// The old mode is in force, but there is something left of the new one.
    #[error(
        "cannot {step}: {cause}; and going back was not complete: {rollback}; the old mode goes on and tries to converge"
    )]
    Incomplete {
        step: &'static str,
        cause: ApplyError,
        rollback: ApplyError,
    },
}

/// A step that failed.
struct Failed {
    step: &'static str,
    cause: ApplyError,
}

trait At<T> {
    fn at(self, step: &'static str) -> Result<T, Failed>;
}

impl<T, E: Into<ApplyError>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Failed> {
        self.map_err(|error| Failed {
            step,
            cause: error.into(),
        })
    }
}

impl Failed {
    fn into_error(self, rollback: Result<(), ApplyError>) -> SwitchError {
        let Self { step, cause } = self;
        match rollback {
            Ok(()) => SwitchError::RolledBack { step, cause },
            Err(rollback) => SwitchError::Incomplete {
                step,
                cause,
                rollback,
            },
        }
    }
}

/// From rules to programs.
///
/// # Errors
///
/// The step that failed; whatever it was, the rules are in force again and have the flows.
pub async fn to_ebpf(
    old: &mut IptablesDataplane,
    new: &mut EbpfDataplane,
    desired: &Desired,
    teller: &Teller,
) -> Result<Outcome, SwitchError> {
    match rules_to_programs(old, new, desired, teller).await {
        Ok(outcome) => Ok(outcome),
        Err(failed) => {
            teller.progress(format!(
                "cannot {}: {}; going back",
                failed.step, failed.cause
            ));
            let rollback = back_to_rules(old, new, desired).await;
            Err(failed.into_error(rollback))
        }
    }
}

async fn rules_to_programs(
    old: &mut IptablesDataplane,
    new: &mut EbpfDataplane,
    desired: &Desired,
    teller: &Teller,
) -> Result<Outcome, Failed> {
    new.begin_handover().at("tell the programs of the change")?;
    converge(new, desired)
        .await
        .at("bring the programs about")?;
    teller.progress("the programs are attached, and leave what begins to the rules");
    let adoption = take_over(new, desired, teller)
        .await
        .at("take flows over")?;
    check_programs(new).at("verify the programs")?;
    let share = Share::of(desired);
    if share.services.is_empty() {
        let removed = match adoption.left().is_empty() {
            true => old.cleanup().await,
            false => old.retire().await,
        };
        let removed = removed.at("remove the rules")?;
        teller.progress(format!("removed {}", listed(&removed)));
    } else {
        converge(old, &share).await.at("remove the rules")?;
        teller.progress("removed the rules but those for what the programs do not carry");
    }
    Ok(forget(new, adoption).await)
}

/// Takes the flows of connection tracking over and begins to serve what begins.
///
/// # Errors
///
/// As [`EbpfDataplane::adopt`].
pub async fn take_over(
    new: &mut EbpfDataplane,
    desired: &Desired,
    teller: &Teller,
) -> Result<Adoption, ApplyError> {
    let adoption = new.adopt(desired).await?;
    teller.progress(format!(
        "{} flows taken over, {}; the programs serve what begins",
        adoption.flows(),
        tally(&adoption.left())
    ));
    Ok(adoption)
}

/// What has been taken over is no business of connection tracking any more.
async fn forget(new: &EbpfDataplane, adoption: Adoption) -> Outcome {
    let outcome = Outcome {
        flows: adoption.flows(),
        left: adoption.left(),
    };
    if let Err(error) = new.forget(adoption).await {
        tracing::warn!(%error, "connection tracking keeps entries of flows that it does not see any more");
    }
    outcome
}

async fn back_to_rules(
    old: &mut IptablesDataplane,
    new: &mut EbpfDataplane,
    desired: &Desired,
) -> Result<(), ApplyError> {
    converge(old, desired).await?;
    if new.is_in_force()? {
        new.hand_back(&mut HandBack::default(), desired).await?;
    }
    // Connections that only programs can carry keep them.
    match new.is_in_force()? && new.direct_flows()? > 0 {
        true => new.withdraw().await?,
        false => new.cleanup().await?,
    };
    Ok(())
}

/// From programs to rules.
///
/// # Errors
///
/// The step that failed; whatever it was, the programs are in force again and have the flows.
pub async fn to_iptables(
    old: &mut EbpfDataplane,
    new: &mut IptablesDataplane,
    desired: &Desired,
    teller: &Teller,
) -> Result<Outcome, SwitchError> {
    let mut handed = HandBack::default();
    match programs_to_rules(old, new, desired, &mut handed, teller).await {
        Ok(outcome) => Ok(outcome),
        Err(failed) => {
            teller.progress(format!(
                "cannot {}: {}; going back",
                failed.step, failed.cause
            ));
            let rollback = back_to_programs(old, new, desired, handed).await;
            Err(failed.into_error(rollback))
        }
    }
}

async fn programs_to_rules(
    old: &mut EbpfDataplane,
    new: &mut IptablesDataplane,
    desired: &Desired,
    handed: &mut HandBack,
    teller: &Teller,
) -> Result<Outcome, Failed> {
    converge(new, desired).await.at("write the rules")?;
    check_rules(new, desired).await.at("verify the rules")?;
    teller.progress("the rules are written");
    give_over_to(old, handed, desired, teller)
        .await
        .at("hand flows over")
}

/// Tells connection tracking of all flows, then lets go of every packet. Needs the rules in force; whoever attached the
/// programs.
///
/// # Errors
///
/// As [`EbpfDataplane::hand_back`] and [`EbpfDataplane::withdraw`].
pub async fn give_over(
    old: &mut EbpfDataplane,
    desired: &Desired,
    teller: &Teller,
) -> Result<Outcome, ApplyError> {
    give_over_to(old, &mut HandBack::default(), desired, teller).await
}

async fn give_over_to(
    old: &mut EbpfDataplane,
    handed: &mut HandBack,
    desired: &Desired,
    teller: &Teller,
) -> Result<Outcome, ApplyError> {
    old.hand_back(handed, desired).await?;
    teller.progress(format!(
        "{} flows handed over, {}; the rules serve what begins",
        handed.flows(),
        tally(&handed.left())
    ));
    match old.direct_flows()? {
        0 => {}
        direct => teller.progress(format!(
            "{direct} flows that another node answers, or this one for another, stay with the programs until they are over"
        )),
    }
    let removed = old.withdraw().await?;
    teller.progress(format!("removed {}", listed(&removed)));
    Ok(Outcome {
        flows: handed.flows(),
        left: handed.left(),
    })
}

async fn back_to_programs(
    old: &mut EbpfDataplane,
    new: &mut IptablesDataplane,
    desired: &Desired,
    handed: HandBack,
) -> Result<(), ApplyError> {
    converge(old, desired).await?;
    let adoption = old.take_back(handed, desired).await?;
    // What began meanwhile and stays with connection tracking needs its hooks.
    match adoption.left().is_empty() {
        true => new.cleanup().await?,
        false => new.retire().await?,
    };
    Ok(())
}

/// Brings everything about that is desired, whatever there is.
async fn converge(plane: &mut impl Dataplane, desired: &Desired) -> Result<(), ApplyError> {
    plane.observe().await?;
    plane.rehearse().await?;
    let plan = plane.plan(desired, &Change::Full);
    plane.apply(plan).await?;
    Ok(())
}

fn check_programs(plane: &EbpfDataplane) -> Result<(), ApplyError> {
    match plane.difference()? {
        None => Ok(()),
        Some(difference) => Err(ApplyError::Failed {
            what: "the programs are not as they should be".to_owned(),
            reason: difference,
        }),
    }
}

async fn check_rules(plane: &mut IptablesDataplane, desired: &Desired) -> Result<(), ApplyError> {
    plane.observe().await?;
    let plan = plane.plan(desired, &Change::Full);
    let differs = plan.families.iter().any(|f| !f.transaction.is_empty());
    if !differs {
        return Ok(());
    }
    let first = plan.to_string();
    Err(ApplyError::Failed {
        what: "the rules are not as they should be".to_owned(),
        reason: first.lines().take(3).collect::<Vec<_>>().join("; "),
    })
}

fn listed(lines: &[String]) -> String {
    if lines.is_empty() {
        "nothing".to_owned()
    } else {
        lines.join(", ")
    }
}

/// What stays, for people.
fn tally(left: &[(String, usize)]) -> String {
    if left.is_empty() {
        return "none left".to_owned();
    }
    let parts: Vec<String> = left.iter().map(|(why, n)| format!("{n} {why}")).collect();
    format!("left with connection tracking: {}", parts.join(", "))
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} flows went over, {}", self.flows, tally(&self.left))
    }
}
