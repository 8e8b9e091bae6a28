//! The way to one peer: what to send when, and what follows from the answers. Pure: time is an argument.
//!
//! A round asks several questions at once, each a datagram: does anything arrive (small, without a checksum), does a
//! checksum that was left to the network card arrive right (small, with one), does the largest packet arrive. Losses
//! happen: only what fails in [`PROOF`] rounds in a row, while another question of the same round is answered, counts.

use std::time::{Duration, Instant};

/// How long an answer may take.
pub const WAIT: Duration = Duration::from_secs(1);
/// Until the next round when all is well, or is known not to be.
pub const CALM: Duration = Duration::from_secs(30);
/// The same while something is to be found out.
const SOON: Duration = Duration::from_millis(500);
/// Rounds in a row that make a failure one.
const PROOF: u32 = 5;
/// The size of a small packet: what every path carries (RFC 791).
const SMALL: u32 = 68;
/// Sizes that are tried at once while the largest one is searched.
const LADDER: u32 = 8;

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub sequence: u32,
    /// Of the whole IP packet.
    pub size: u32,
    /// With a checksum, which is left to the network card.
    pub checksum: bool,
}

/// What is known of a yes-or-no matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Not yet known.
    #[default]
    Unknown,
    Works,
    Broken,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether anything arrives.
    pub reachable: Health,
    /// The largest packet that arrives, once known.
    pub mtu: Option<u32>,
    /// Whether checksums that are left to the network card arrive right.
    pub offload: Health,
    /// Checksums arrive wrong even if this node computes them: the offload is not to blame, and stays.
    pub mangled: bool,
}

/// Probing of one peer.
#[derive(Debug, Clone)]
pub struct Path {
    /// What should arrive.
    full: u32,
    /// Whether checksums are left to the network card now.
    offloaded: bool,
    found: Found,
    round: Option<Round>,
    next: Instant,
    silent: u32,
    unchecked_only: u32,
    small_only: u32,
    narrow_lost: u32,
    /// Known to arrive, and known not to.
    search: Option<(u32, u32)>,
}

#[derive(Debug, Clone)]
struct Round {
    asked: Vec<(Ask, bool)>,
    ends: Instant,
}

impl Round {
    fn answered(&self, wanted: impl Fn(&Ask) -> bool) -> bool {
        self.asked.iter().any(|(ask, yes)| *yes && wanted(ask))
    }
}

impl Path {
    /// Of a peer that should be sent packets up to `full`; the first round is at `start`.
    pub fn new(full: u32, offloaded: bool, start: Instant) -> Self {
        Self {
            full,
            offloaded,
            found: Found::default(),
            round: None,
            next: start,
            silent: 0,
            unchecked_only: 0,
            small_only: 0,
            narrow_lost: 0,
            search: None,
        }
    }

    /// What is known by now.
    pub fn found(&self) -> Found {
        self.found
    }

    /// When [`Path::tick`] has something to do.
    pub fn due(&self) -> Instant {
        self.round.as_ref().map_or(self.next, |round| round.ends)
    }

    /// Another size should arrive from now on.
    pub fn resize(&mut self, full: u32, now: Instant) {
        if self.full != full {
            let offload = self.found.offload;
            let reachable = self.found.reachable;
            *self = Self::new(full, self.offloaded, now);
            (self.found.offload, self.found.reachable) = (offload, reachable);
        }
    }

    /// Checksums are left to the network card from now on, or no longer.
    pub fn set_offloaded(&mut self, offloaded: bool, now: Instant) {
        if self.offloaded != offloaded {
            self.offloaded = offloaded;
            self.unchecked_only = 0;
            // What is under way was sent before, or was not.
            self.round = None;
            self.next = now;
        }
    }

    /// Ends the round that is over and begins the one that is due; answers what to send. `sequence` counts up.
    pub fn tick(&mut self, now: Instant, sequence: &mut u32) -> Vec<Ask> {
        if self.round.as_ref().is_some_and(|round| now >= round.ends) {
            self.end(now);
        }
        if self.round.is_some() || now < self.next {
            return Vec::new();
        }
        let asks: Vec<_> = self
            .questions()
            .into_iter()
            .map(|(size, checksum)| {
                *sequence = sequence.wrapping_add(1);
                Ask {
                    sequence: *sequence,
                    size,
                    checksum,
                }
            })
            .collect();
        self.round = Some(Round {
            asked: asks.iter().map(|ask| (*ask, false)).collect(),
            ends: now + WAIT,
        });
        asks
    }

    /// An answer came in. When it was the last one, the round is over.
    pub fn answer(&mut self, sequence: u32, now: Instant) {
        let Some(round) = &mut self.round else {
            return;
        };
        for (ask, answered) in &mut round.asked {
            *answered |= ask.sequence == sequence;
        }
        if round.asked.iter().all(|(_, answered)| *answered) {
            self.end(now);
        }
    }

    fn questions(&self) -> Vec<(u32, bool)> {
        if let Some((low, high)) = self.search {
            let step = ((high - low) / (LADDER + 1)).max(1);
            let sizes = (1..=LADDER).map(|n| low + n * step);
            return sizes
                .filter(|size| *size < high)
                .map(|size| (size, false))
                .collect();
        }
        let mut questions = vec![(SMALL, false), (SMALL, true), (self.full, false)];
        if let Some(narrow) = self.found.mtu.filter(|mtu| *mtu < self.full) {
            questions.push((narrow, false));
        }
        questions
    }

    fn end(&mut self, now: Instant) {
        let Some(round) = self.round.take() else {
            return;
        };
        let calm = if self.search.is_some() {
            self.narrow_down(&round)
        } else {
            self.judge(&round)
        };
        self.next = now + if calm { CALM } else { SOON };
    }

    /// Answers whether there is nothing left to be found out soon.
    fn judge(&mut self, round: &Round) -> bool {
        if !round.answered(|_| true) {
            self.silent = self.silent.saturating_add(1);
            if self.silent >= PROOF {
                self.found.reachable = Health::Broken;
            }
            // A peer that does not answer may be gone for long; one that comes back is found within seconds.
            return self.silent > 4 * PROOF;
        }
        self.silent = 0;
        self.found.reachable = Health::Works;
        let checksums = self.judge_checksums(round);
        let sizes = self.judge_sizes(round);
        checksums && sizes
    }

    fn judge_checksums(&mut self, round: &Round) -> bool {
        if round.answered(|ask| ask.checksum) {
            self.unchecked_only = 0;
            self.found.mangled = false;
            if self.offloaded {
                self.found.offload = Health::Works;
            }
            return true;
        }
        self.unchecked_only = self.unchecked_only.saturating_add(1);
        if self.unchecked_only < PROOF {
            return false;
        }
        if self.offloaded && !self.found.mangled {
            self.found.offload = Health::Broken;
        } else if !self.offloaded {
            self.found.offload = Health::Unknown;
            self.found.mangled = true;
        }
        true
    }

    fn judge_sizes(&mut self, round: &Round) -> bool {
        let full = self.full;
        if round.answered(|ask| ask.size == full) {
            (self.small_only, self.narrow_lost) = (0, 0);
            self.found.mtu = Some(full);
            return true;
        }
        if let Some(narrow) = self.found.mtu.filter(|mtu| *mtu < full)
            && round.answered(|ask| ask.size == narrow)
        {
            self.narrow_lost = 0;
            return true;
        }
        self.small_only = self.small_only.saturating_add(1);
        if self.small_only >= PROOF {
            self.small_only = 0;
            self.search = Some((SMALL, full));
        }
        false
    }

    fn narrow_down(&mut self, round: &Round) -> bool {
        let Some((low, high)) = self.search else {
            return true;
        };
        let arrived = round.asked.iter().filter(|(_, yes)| *yes);
        let low = arrived.map(|(ask, _)| ask.size).fold(low, u32::max);
        let lost = round
            .asked
            .iter()
            .filter(|(ask, yes)| !*yes && ask.size > low);
        let high = lost.map(|(ask, _)| ask.size).fold(high, u32::min);
        if high - low > 1 {
            self.search = Some((low, high));
            return false;
        }
        self.search = None;
        self.found.mtu = Some(low);
        true
    }
}

#[cfg(test)]
mod tests;
