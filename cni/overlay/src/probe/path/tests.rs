use super::*;

/// A way with faults.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The largest packet that passes.
    mtu: u32,
    /// Checksums that are left to the network card are wrong.
    breaks_offload: bool,
    /// All checksums are.
    mangles: bool,
    /// Every n-th datagram is lost.
    loses: Option<u32>,
    silent: bool,
}

const GOOD: Way = Way {
    mtu: 9000,
    breaks_offload: false,
    mangles: false,
    loses: None,
    silent: false,
};

struct Run {
    path: Path,
    now: Instant,
    sequence: u32,
    sent: u32,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            path: Path::new(1450, true, now),
            now,
            sequence: 0,
            sent: 0,
        }
    }

    /// Lets so much time pass over a way; answers what is found then.
    fn over(&mut self, way: Way, time: Duration) -> Found {
        let until = self.now + time;
        while self.path.due() <= until {
            self.now = self.now.max(self.path.due());
            for ask in self.path.tick(self.now, &mut self.sequence) {
                self.sent += 1;
                let wrong = way.mangles || way.breaks_offload && self.path.offloaded;
                let lost = way.silent
                    || ask.size > way.mtu
                    || ask.checksum && wrong
                    || way.loses.is_some_and(|n| self.sent.is_multiple_of(n));
                if !lost {
                    self.path.answer(ask.sequence, self.now);
                }
            }
        }
        self.now = until;
        self.path.found()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_good_way_is_known_after_one_round_and_then_left_alone() {
    let mut run = Run::new();
    let found = run.over(GOOD, Duration::ZERO);
    let good = Found {
        reachable: Health::Works,
        mtu: Some(1450),
        offload: Health::Works,
        mangled: false,
    };
    assert_eq!(found, good);
    assert_eq!(run.sent, 3);
    assert_eq!(run.over(GOOD, 5 * MINUTE), good);
    assert_eq!(run.sent, 33, "three datagrams in half a minute");
}

#[test]
fn the_largest_packet_is_found_exactly_within_seconds() {
    for mtu in [68, 69, 576, 1280, 1398, 1449] {
        let mut run = Run::new();
        let found = run.over(Way { mtu, ..GOOD }, Duration::from_secs(30));
        assert_eq!(found.mtu, Some(mtu));
        assert_eq!(found.offload, Health::Works);
        // When the way is mended, the next round sees it.
        assert_eq!(run.over(GOOD, CALM + WAIT).mtu, Some(1450));
        // And when it becomes narrower still.
        let narrower = Way { mtu: 1000, ..GOOD };
        run.over(Way { mtu, ..GOOD }, MINUTE);
        assert_eq!(
            run.over(narrower, 2 * MINUTE).mtu,
            Some(mtu.min(1000)),
            "{mtu}"
        );
    }
}

#[test]
fn losses_are_not_taken_for_faults() {
    for n in [2, 4, 5, 7, 11] {
        let mut run = Run::new();
        let loses = Some(n);
        let found = run.over(Way { loses, ..GOOD }, 10 * MINUTE);
        assert_eq!(found.reachable, Health::Works);
        assert_eq!(found.mtu, Some(1450), "one of {n}");
        assert_ne!(found.offload, Health::Broken, "one of {n}");
    }
}

#[test]
fn a_broken_offload_is_found_and_not_forgotten_when_worked_around() {
    let mut run = Run::new();
    let way = Way {
        breaks_offload: true,
        ..GOOD
    };
    let found = run.over(way, Duration::from_secs(12));
    assert_eq!(found.offload, Health::Broken);
    run.path.set_offloaded(false, run.now);
    let found = run.over(way, 5 * MINUTE);
    assert_eq!((found.offload, found.mangled), (Health::Broken, false));
}

#[test]
fn the_offload_is_not_blamed_for_what_others_do() {
    let mut run = Run::new();
    let way = Way {
        mangles: true,
        ..GOOD
    };
    assert_eq!(
        run.over(way, Duration::from_secs(12)).offload,
        Health::Broken
    );
    run.path.set_offloaded(false, run.now);
    let found = run.over(way, Duration::from_secs(12));
    assert_eq!((found.offload, found.mangled), (Health::Unknown, true));
    // So it is left to the card again, and stays there.
    run.path.set_offloaded(true, run.now);
    let found = run.over(way, 5 * MINUTE);
    assert_eq!((found.offload, found.mangled), (Health::Unknown, true));
    let found = run.over(GOOD, MINUTE);
    assert_eq!((found.offload, found.mangled), (Health::Works, false));
}

#[test]
fn a_silent_peer_is_asked_less_and_found_again() {
    let mut run = Run::new();
    let silent = Way {
        silent: true,
        ..GOOD
    };
    assert_eq!(
        run.over(silent, Duration::from_secs(1)).reachable,
        Health::Unknown
    );
    assert_eq!(run.over(silent, MINUTE).reachable, Health::Broken);
    let before = run.sent;
    run.over(silent, 10 * MINUTE);
    assert!(run.sent - before <= 3 * 20, "{}", run.sent - before);
    assert_eq!(run.over(GOOD, CALM + WAIT).reachable, Health::Works);
}

#[test]
fn another_mtu_is_tried_at_once() {
    let mut run = Run::new();
    run.over(GOOD, MINUTE);
    run.path.resize(1350, run.now);
    let found = run.path.found();
    assert_eq!((found.reachable, found.mtu), (Health::Works, None));
    assert_eq!(run.over(GOOD, Duration::ZERO).mtu, Some(1350));
}
