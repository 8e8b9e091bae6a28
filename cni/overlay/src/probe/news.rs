//! What the log is told of peers. Where one card, one switch or one firewall fails, all peers do: the first is told at once,
//! those of the time after it together. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::path::{CALM, Found, Health};

/// Between two lines of a kind. What befalls all peers at once is seen of the last one [`CALM`] after the first.
const PERIOD: Duration = CALM.saturating_add(Duration::from_secs(10));

/// How many peers a line names.
const NAMED: usize = 5;

/// What is wrong with the way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Silent,
    Offload,
    Mangled,
}

impl Trouble {
    const ALL: [Self; 3] = [Self::Silent, Self::Offload, Self::Mangled];

    fn is_in(self, found: Found) -> bool {
        match self {
            Self::Silent => found.reachable == Health::Broken,
            Self::Offload => found.offload == Health::Broken,
            Self::Mangled => found.mangled,
        }
    }
}

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct News(BTreeMap<Trouble, Telling>);

/// The same of one kind of trouble.
#[derive(Debug, Default)]
struct Telling {
    /// When the last line was written.
    told: Option<Instant>,
    untold: BTreeSet<Arc<str>>,
}

impl Telling {
    fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.told.map_or(now, |told| told + PERIOD);
        (!self.untold.is_empty()).then_some(due)
    }
}

impl News {
    /// Something else was found of a peer. Trouble that is over before it was told is not told.
    pub(super) fn hear(&mut self, peer: &Arc<str>, before: Found, found: Found) {
        for trouble in Trouble::ALL {
            let untold = &mut self.0.entry(trouble).or_default().untold;
            if !trouble.is_in(found) {
                untold.remove(peer);
            } else if !trouble.is_in(before) {
                untold.insert(peer.clone());
            }
        }
    }

    /// Nothing is told any more of other peers than these.
    pub(super) fn retain(&mut self, stays: impl Fn(&Arc<str>) -> bool) {
        for telling in self.0.values_mut() {
            telling.untold.retain(&stays);
        }
    }

    /// When [`News::lines`] has something to say, which may be past.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|telling| telling.due(now)).min()
    }

    /// What is to be logged now: at most one line of each kind.
    pub(super) fn lines(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (trouble, telling) in &mut self.0 {
            if telling.due(now).is_some_and(|due| due <= now) {
                lines.push(line(*trouble, &std::mem::take(&mut telling.untold)));
                telling.told = Some(now);
            }
        }
        lines
    }
}

fn line(trouble: Trouble, peers: &BTreeSet<Arc<str>>) -> String {
    let one = peers.len() == 1;
    let mut named: Vec<&str> = peers.iter().take(NAMED).map(|peer| &**peer).collect();
    let more = format!("and {} more", peers.len() - named.len());
    if peers.len() > NAMED {
        named.push(&more);
    }
    let named = named.join(", ");
    let who = match one {
        true => format!("peer {named}"),
        false => format!("{} peers ({named})", peers.len()),
    };
    match trouble {
        Trouble::Silent if one => format!("{who} does not answer probes any more"),
        Trouble::Silent => format!("{who} do not answer probes any more"),
        Trouble::Offload => {
            format!("checksums of packets to {who} arrive wrong when the network card makes them")
        }
        Trouble::Mangled => {
            format!("checksums of packets to {who} arrive wrong whoever makes them")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Found = Found {
        reachable: Health::Works,
        mtu: Some(1450),
        offload: Health::Works,
        mangled: false,
    };
    const SILENT: Found = Found {
        reachable: Health::Broken,
        ..GOOD
    };
    const OFFLOAD: Found = Found {
        offload: Health::Broken,
        ..GOOD
    };
    const MANGLED: Found = Found {
        mangled: true,
        ..GOOD
    };

    /// What is found at which second, of which peers, and which lines that makes in two minutes.
    #[track_caller]
    fn told(found: &[(u64, &[u32], Found, Found)], lines: &[(u64, &str)]) {
        let start = Instant::now();
        let mut news = News::default();
        let mut seen = Vec::new();
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            for (_, peers, before, found) in found.iter().filter(|(at, ..)| *at == second) {
                for peer in *peers {
                    news.hear(&format!("n{peer}").into(), *before, *found);
                }
            }
            let due = news.due(now);
            let new = news.lines(now);
            assert_eq!(due.is_some_and(|due| due <= now), !new.is_empty());
            seen.extend(new.into_iter().map(|line| (second, line)));
        }
        let seen: Vec<_> = seen.iter().map(|(at, line)| (*at, &**line)).collect();
        assert_eq!(seen, lines);
    }

    #[test]
    fn a_single_peer_has_a_line_of_its_own_at_once() {
        for (found, line) in [
            (SILENT, "peer n7 does not answer probes any more"),
            (
                OFFLOAD,
                "checksums of packets to peer n7 arrive wrong when the network card makes them",
            ),
            (
                MANGLED,
                "checksums of packets to peer n7 arrive wrong whoever makes them",
            ),
        ] {
            told(&[(3, &[7], GOOD, found)], &[(3, line)]);
            told(&[(3, &[7], Found::default(), found)], &[(3, line)]);
            told(&[(3, &[7], found, found), (4, &[7], found, GOOD)], &[]);
        }
    }

    #[test]
    fn many_have_one_line_each_period() {
        let many: Vec<u32> = (100..1099).collect();
        told(
            &[
                (3, &[7], GOOD, SILENT),
                (4, &many[..500], GOOD, SILENT),
                (33, &many[500..], GOOD, SILENT),
            ],
            &[
                (3, "peer n7 does not answer probes any more"),
                (
                    43,
                    "999 peers (n100, n1000, n1001, n1002, n1003, and 994 more) do not answer probes any more",
                ),
            ],
        );
        let five = [1, 2, 3, 4, 5];
        told(
            &[(3, &five, GOOD, OFFLOAD), (4, &five[..2], GOOD, MANGLED)],
            &[
                (
                    3,
                    "checksums of packets to 5 peers (n1, n2, n3, n4, n5) arrive wrong when the network card makes them",
                ),
                (
                    4,
                    "checksums of packets to 2 peers (n1, n2) arrive wrong whoever makes them",
                ),
            ],
        );
    }

    #[test]
    fn what_is_over_before_its_time_is_not_told() {
        told(
            &[
                (3, &[7], GOOD, SILENT),
                (4, &[8, 9], GOOD, SILENT),
                (20, &[7, 9], SILENT, GOOD),
                (90, &[7], GOOD, SILENT),
            ],
            &[
                (3, "peer n7 does not answer probes any more"),
                (43, "peer n8 does not answer probes any more"),
                (90, "peer n7 does not answer probes any more"),
            ],
        );
    }

    #[test]
    fn nothing_is_told_of_who_has_left() {
        let mut news = News::default();
        let now = Instant::now();
        for peer in ["n1", "n2"] {
            news.hear(&peer.into(), GOOD, SILENT);
        }
        news.retain(|peer| &**peer == "n2");
        assert_eq!(news.lines(now), ["peer n2 does not answer probes any more"]);
        news.hear(&"n3".into(), GOOD, SILENT);
        news.retain(|_| false);
        assert_eq!(news.due(now), None);
    }
}
