//! Whether packets between pods go past the stack at this moment. That stands in the programs' configuration, so that it outlives
//! this process; here is how it comes and goes.

use std::time::{Duration, Instant};

use seaway_ebpf_abi::Config;
use seaway_ebpf_abi::config::{CONFIG_POD_DETOURS, CONFIG_POD_FAST};
use seaway_kernel::NetNs;
use seaway_kernel::conntrack::Conntrack;
use tokio::task::JoinSet;

use super::{PodFastPath, detours, rules};
use crate::ebpf::config::EbpfConfig;
use crate::ebpf::error::EbpfError;
use crate::ebpf::tables::Tables;
use crate::iptables::watch::generation;
use crate::task::{blocking, finished};

/// How often somebody looks for rules of others, if nothing says that they have changed: those of legacy iptables do not.
const INTERVAL: Duration = Duration::from_secs(300);
/// The same after a look that failed.
const RETRY: Duration = Duration::from_secs(15);
/// The least time between two looks, however often rules change.
const PAUSE: Duration = Duration::from_secs(3);

/// What was decided, and on what grounds.
#[derive(Debug, Default)]
pub(in crate::ebpf) struct FastPath {
    last: Option<Look>,
    in_the_way: Option<String>,
    /// The look that is under way, if any. What it finds is void as soon as [`forget`](Self::forget) is called.
    looking: JoinSet<Result<Option<String>, EbpfError>>,
}

/// A look for what is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    began: Instant,
    /// Of the nf_tables rules that were looked at, or of newer ones.
    generation: Option<u32>,
    failed: bool,
}

impl Look {
    /// Whether it is time for the next one.
    fn is_over(&self, now: Instant, generation: Option<u32>) -> bool {
        let elapsed = now.saturating_duration_since(self.began);
        let valid = match self.failed {
            true => RETRY,
            false => INTERVAL,
        };
        elapsed >= valid || (elapsed >= PAUSE && generation != self.generation)
    }
}

impl FastPath {
    /// What is known is void: connection tracking has flows that nobody has looked for.
    pub(in crate::ebpf) fn forget(&mut self) {
        self.last = None;
        self.looking = JoinSet::new();
    }

    /// Begins to look for what is in the way, if it is time to.
    pub(in crate::ebpf) fn look(
        &mut self,
        settings: &EbpfConfig,
        netns: &NetNs,
    ) -> Result<(), EbpfError> {
        if settings.pod_fast_path == PodFastPath::Off || !self.looking.is_empty() {
            return Ok(());
        }
        let generation = match settings.pod_fast_path {
            PodFastPath::Auto => {
                let _inside = netns.enter()?;
                generation()
            }
            PodFastPath::On | PodFastPath::Off => None,
        };
        let now = Instant::now();
        if self.last.is_none_or(|last| last.is_over(now, generation)) {
            self.last = Some(Look {
                began: now,
                generation,
                failed: false,
            });
            self.looking.spawn(prepare(settings.clone(), netns.clone()));
        }
        Ok(())
    }

    /// What was found; never, if nobody looks. May be dropped and called again.
    pub(in crate::ebpf) async fn found(&mut self) -> Result<Option<String>, EbpfError> {
        match self.looking.join_next().await {
            Some(found) => finished(found),
            None => std::future::pending().await,
        }
    }

    /// Takes in what was found in the way of packets past the stack, if anything was. Where that is not known, there might be.
    pub(in crate::ebpf) fn decide(
        &mut self,
        settings: &EbpfConfig,
        found: Result<Option<String>, EbpfError>,
    ) -> Result<(), EbpfError> {
        let Some(tables) = Tables::open(&settings.pin_dir())? else {
            return Ok(());
        };
        let in_the_way = found.unwrap_or_else(|error| {
            if let Some(last) = &mut self.last {
                last.failed = true;
            }
            Some(error.to_string())
        });
        if let Some(reason) = in_the_way
            .as_ref()
            .filter(|_| self.in_the_way != in_the_way)
        {
            tracing::warn!(
                %reason,
                "packets between pods go through the stack, because of rules of others (--pod-fast-path=on: past them)"
            );
        }
        let mut config = tables.read_config()?;
        let before = config.flags;
        config.flags &= !CONFIG_POD_FAST;
        if in_the_way.is_none() {
            config.flags |= CONFIG_POD_FAST;
        }
        if config.flags != before {
            tables.config.set(&0, &config)?;
            let on = in_the_way.is_none();
            tracing::info!(on, "packets between pods past the stack");
        }
        self.in_the_way = in_the_way;
        Ok(())
    }
}

/// The bits of a new configuration, where the programs have that one now.
pub(in crate::ebpf) fn flags(there: &Config, mode: PodFastPath) -> u32 {
    match mode {
        PodFastPath::Off => 0,
        PodFastPath::Auto | PodFastPath::On => CONFIG_POD_DETOURS | there.flags & CONFIG_POD_FAST,
    }
}

/// Looks for what is in the way; if nothing is, has the programs know of the flows that connection tracking translates.
async fn prepare(settings: EbpfConfig, netns: NetNs) -> Result<Option<String>, EbpfError> {
    if settings.pod_fast_path == PodFastPath::Auto
        && let Some(rule) = rules::foreign(&netns).await?
    {
        return Ok(Some(rule));
    }
    let mut conntrack = Conntrack::in_namespace(&netns)?;
    let noted = blocking(move || detours::note(&settings.pin_dir(), &mut conntrack)).await?;
    tracing::debug!(noted, "flows between pods stay with connection tracking");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_stays_on_over_a_start_but_not_where_it_is_off() {
        let there = |flags| Config {
            flags,
            ..Config::default()
        };
        for (mode, before, expected) in [
            (PodFastPath::Off, CONFIG_POD_FAST | CONFIG_POD_DETOURS, 0),
            (PodFastPath::Auto, 0, CONFIG_POD_DETOURS),
            (PodFastPath::On, 1, CONFIG_POD_DETOURS),
            (
                PodFastPath::On,
                CONFIG_POD_FAST,
                CONFIG_POD_FAST | CONFIG_POD_DETOURS,
            ),
        ] {
            assert_eq!(flags(&there(before), mode), expected, "{mode:?} {before}");
        }
    }

    #[test]
    fn it_is_looked_again_when_rules_change_and_from_time_to_time() {
        let began = Instant::now();
        let look = |failed| Look {
            began,
            generation: Some(7),
            failed,
        };
        for (failed, seconds, generation, expected) in [
            (false, 0, Some(8), false),
            (false, 3, Some(7), false),
            (false, 3, Some(8), true),
            (false, 3, None, true),
            (false, 299, Some(7), false),
            (false, 300, Some(7), true),
            (true, 14, Some(7), false),
            (true, 15, Some(7), true),
        ] {
            let now = began + Duration::from_secs(seconds);
            assert_eq!(
                look(failed).is_over(now, generation),
                expected,
                "{failed} {seconds} {generation:?}"
            );
        }
    }
}
