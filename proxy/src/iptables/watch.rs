//! Noticing that somebody else has changed the tables.
//!
//! The nft variant has a generation number that every change raises; asking for it is one netlink message, so the
//! rules themselves are read only when the number says that they may differ. The legacy variant says how many rules
//! its tables have, which a flush, an insertion or a deletion changes; for the rest it is read at intervals that keep
//! the cost at a few percent. Each variant in use is watched for the tables that it keeps.

use std::time::Duration;

use seaway_kernel::capabilities::IptablesVariant;
use seaway_kernel::{LegacyTables, TableSize};
use seaway_model::Family;
use tokio::time::Instant;

use super::placement::{Placement, Share};
use super::rule::Table;
use generation::Generation;

mod generation;
#[cfg(test)]
mod tests;

/// How often we ask whether anything has changed: one message or a few system calls.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Shortest pause between two looks at the rules themselves.
pub const PAUSE: Duration = Duration::from_millis(500);

/// A look that takes long is repeated less often: it may take this part of the time at most.
const IDLE_PER_WORK: u32 = 40;

/// How long to wait after a look that took `took`.
pub fn pause(took: Duration) -> Duration {
    PAUSE.max(took * IDLE_PER_WORK)
}

/// What changes when the rules change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// Of the nft variant: two equal ones are the same rules.
    Generation(u32),
    /// Of the legacy variant: the sizes of the tables. A rule that was put in place of another of the same size does
    /// not show.
    Sizes(Vec<TableSize>),
}

/// The stamp of each variant in use; `None` where the kernel does not say.
pub type Stamps = Vec<Option<Stamp>>;

/// Whether this kernel has nf_tables at all.
pub fn has_nf_tables() -> bool {
    generation().is_some()
}

/// The generation of the nf_tables rules of the calling thread's network namespace: 1 before there was any rule.
pub fn generation() -> Option<u32> {
    let generation = Generation::open().and_then(|generation| generation.now());
    generation.ok().flatten()
}

/// Decides when to look at which rules.
#[derive(Debug, Default)]
pub struct Watcher {
    placement: Option<Placement>,
    sides: Vec<Side>,
    /// Next time to ask for the stamps.
    next_poll: Option<Instant>,
}

/// The tables of one variant.
#[derive(Debug)]
struct Side {
    share: Share,
    source: Option<Source>,
    /// Of the rules that the image describes, if it is known.
    known: Option<Stamp>,
    /// After a change that was none of ours, not before this.
    not_before: Option<Instant>,
    /// An equal stamp that proves nothing: look all the same, but then.
    next_audit: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    NfTables(Generation),
    Legacy(Vec<LegacyTables>),
}

impl Watcher {
    /// Watches these tables from now on; of those that were not watched so far it knows nothing yet.
    pub fn place(&mut self, placement: Placement) {
        if self.placement.replace(placement) == Some(placement) {
            return;
        }
        let side = |share| Side {
            share,
            source: None,
            known: None,
            not_before: None,
            next_audit: None,
        };
        self.sides = placement.shares().into_iter().map(side).collect();
    }

    /// The stamps before it is known which tables there are: without those of the legacy variant, which makes the
    /// tables that it is asked for.
    pub fn first_stamps(&mut self) -> Stamps {
        let nft = |side: &mut Side| match side.share.variant {
            IptablesVariant::NfTables => side.stamp(&[]),
            IptablesVariant::Legacy => None,
        };
        self.sides.iter_mut().map(nft).collect()
    }

    /// The stamps now.
    pub fn stamps(&mut self, families: &[Family]) -> Stamps {
        let stamp = |side: &mut Side| side.stamp(families);
        self.sides.iter_mut().map(stamp).collect()
    }

    /// The image describes the rules of these stamps.
    pub fn set_known(&mut self, stamps: Stamps) {
        for (side, stamp) in self.sides.iter_mut().zip(stamps) {
            side.known = stamp;
        }
    }

    /// We have changed the rules ourselves, between two moments, in so many commits to each table. If nobody else did
    /// meanwhile, the image still describes them.
    pub fn changed_by_us(&mut self, before: &Stamps, after: Stamps, commits: Commits) {
        for ((side, before), after) in self.sides.iter_mut().zip(before).zip(after) {
            side.changed_by_us(before, after, commits.of(side.share.tables));
        }
    }

    /// Waits until the next stamps are due. Cancel-safe, and goes on where it was when cancelled.
    pub async fn tick(&mut self) {
        let now = Instant::now();
        let due = *self.next_poll.get_or_insert(now + INTERVAL);
        tokio::time::sleep_until(due).await;
        self.next_poll = Some(Instant::now() + INTERVAL);
    }

    /// The tables to look at now that the stamps are these, each variant with its own stamp.
    pub fn due(&self, stamps: Stamps) -> Vec<(Share, Option<Stamp>)> {
        let sides = self.sides.iter().zip(stamps);
        sides
            .filter(|(side, stamp)| side.is_due(stamp.as_ref()))
            .map(|(side, stamp)| (side.share, stamp))
            .collect()
    }

    /// A look at these tables that began at `stamp` and took so long has found nothing amiss.
    pub fn looked(&mut self, share: Share, stamp: Option<Stamp>, took: Duration) {
        if let Some(side) = self.sides.iter_mut().find(|side| side.share == share) {
            side.looked(stamp, took);
        }
    }
}

/// How often each table was changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commits([u32; Table::ALL.len()]);

impl Commits {
    /// Counts some more.
    pub fn add(&mut self, table: Table, count: u32) {
        self.0[table as usize] += count;
    }

    fn of(&self, tables: &[Table]) -> u32 {
        tables.iter().map(|table| self.0[*table as usize]).sum()
    }
}

impl Side {
    fn stamp(&mut self, families: &[Family]) -> Option<Stamp> {
        if self.source.is_none() {
            self.source = match self.share.variant {
                IptablesVariant::NfTables => Generation::open().ok().map(Source::NfTables),
                IptablesVariant::Legacy => {
                    let open = |family: &Family| LegacyTables::open(*family == Family::V6).ok();
                    let tables: Vec<_> = families.iter().filter_map(open).collect();
                    (tables.len() == families.len()).then_some(Source::Legacy(tables))
                }
            };
        }
        match self.source.as_ref()? {
            Source::NfTables(generation) => generation.now().ok().flatten().map(Stamp::Generation),
            Source::Legacy(families) => {
                let tables = self.share.tables;
                let sizes = families
                    .iter()
                    .flat_map(|family| tables.iter().map(|t| family.size(t.as_str()).ok()));
                sizes.collect::<Option<_>>().map(Stamp::Sizes)
            }
        }
    }

    fn changed_by_us(&mut self, before: &Option<Stamp>, after: Option<Stamp>, commits: u32) {
        if before.is_none() || *before != self.known {
            return;
        }
        match (before, after) {
            (Some(Stamp::Generation(before)), Some(Stamp::Generation(after)))
                if before.wrapping_add(commits) == after =>
            {
                self.known = Some(Stamp::Generation(after));
            }
            (Some(Stamp::Sizes(_)), Some(after @ Stamp::Sizes(_))) => self.known = Some(after),
            _ => {}
        }
    }

    fn is_due(&self, stamp: Option<&Stamp>) -> bool {
        let now = Instant::now();
        let reached = |time: Option<Instant>| time.is_none_or(|time| time <= now);
        match stamp {
            Some(stamp) if Some(stamp) == self.known.as_ref() => {
                matches!(stamp, Stamp::Sizes(_)) && reached(self.next_audit)
            }
            _ => reached(self.not_before),
        }
    }

    fn looked(&mut self, stamp: Option<Stamp>, took: Duration) {
        let next = Some(Instant::now() + pause(took));
        if stamp.is_none() || stamp != self.known {
            self.not_before = next;
        }
        self.next_audit = next;
        self.known = stamp;
    }
}
