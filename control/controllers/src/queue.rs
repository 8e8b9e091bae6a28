//! A keyed work queue: a key waits once however often it is touched, and is never worked on twice at once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::object::ObjRef;

/// First pause after a failure; doubles with each further one (as client-go's item rate limiter).
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// Longest pause after failures.
const LAST_BACKOFF: Duration = Duration::from_secs(30);

/// The queue of one controller. Time comes in from outside.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: VecDeque<ObjRef>,
    /// Keys in `ready`.
    waiting: HashSet<ObjRef>,
    working: HashSet<ObjRef>,
    /// Touched while being worked on: to be done again.
    again: HashSet<ObjRef>,
    /// At most one entry for each key.
    delayed: BTreeSet<(Duration, ObjRef)>,
    due: HashMap<ObjRef, Duration>,
    failures: HashMap<ObjRef, u32>,
}

impl Queue {
    /// Puts a key in line.
    pub(crate) fn touch(&mut self, key: ObjRef) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn schedule(&mut self, key: &ObjRef, at: Option<Duration>) {
        if let Some(before) = self.due.remove(key) {
            self.delayed.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.due.insert(key.clone(), at);
            self.delayed.insert((at, key.clone()));
        }
    }

    /// The next key to work on.
    pub(crate) fn take(&mut self, now: Duration) -> Option<ObjRef> {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
            && let Some((_, key)) = self.delayed.pop_first()
        {
            self.due.remove(&key);
            self.touch(key);
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    /// When the next delayed key falls due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// Ends the work on a key well; it comes back at `again_at`, if that is given, and at no other time asked for
    /// before.
    pub(crate) fn done(&mut self, key: &ObjRef, again_at: Option<Duration>) {
        self.failures.remove(key);
        self.schedule(key, again_at);
        self.release(key);
    }

    /// Ends the work on a key badly: it comes back after a pause. Returns the pause.
    pub(crate) fn retry(&mut self, key: &ObjRef, now: Duration) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_BACKOFF * 2_u32.pow((*failures).min(13));
        *failures += 1;
        let pause = pause.min(LAST_BACKOFF);
        // A change that arrived meanwhile waits as well, or a key that keeps failing would spin on its own changes.
        self.again.remove(key);
        self.release(key);
        self.schedule(key, Some(now + pause));
        pause
    }

    fn release(&mut self, key: &ObjRef) {
        self.working.remove(key);
        if self.again.remove(key) {
            self.touch(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn key(name: &str) -> ObjRef {
        ObjRef::new(Kind::Pod, "ns", name)
    }

    const T0: Duration = Duration::ZERO;

    #[test]
    fn a_key_waits_once() {
        let mut queue = Queue::default();
        queue.touch(key("a"));
        queue.touch(key("b"));
        queue.touch(key("a"));
        assert_eq!(queue.take(T0), Some(key("a")));
        assert_eq!(queue.take(T0), Some(key("b")));
        assert_eq!(queue.take(T0), None);
    }

    #[test]
    fn a_key_touched_during_work_comes_again_afterwards() {
        let mut queue = Queue::default();
        queue.touch(key("a"));
        assert_eq!(queue.take(T0), Some(key("a")));
        queue.touch(key("a"));
        assert_eq!(queue.take(T0), None);
        queue.done(&key("a"), None);
        assert_eq!(queue.take(T0), Some(key("a")));
        queue.done(&key("a"), None);
        assert_eq!(queue.take(T0), None);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_limit() {
        let mut queue = Queue::default();
        let mut now = T0;
        queue.touch(key("a"));
        let pauses: Vec<u128> = (0..15)
            .map(|_| {
                assert_eq!(queue.take(now), Some(key("a")));
                let pause = queue.retry(&key("a"), now);
                assert_eq!(queue.take(now), None);
                assert_eq!(queue.next_due(), Some(now + pause));
                now += pause;
                pause.as_millis()
            })
            .collect();
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[14], 30_000);
        assert_eq!(queue.take(now), Some(key("a")));
        queue.done(&key("a"), None);
        queue.touch(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.retry(&key("a"), now).as_millis(), 5);
    }

    #[test]
    fn a_delayed_key_is_due_once() {
        let mut queue = Queue::default();
        queue.touch(key("a"));
        assert_eq!(queue.take(T0), Some(key("a")));
        queue.done(&key("a"), Some(Duration::from_secs(5)));
        queue.touch(key("a"));
        assert_eq!(queue.take(T0), Some(key("a")));
        queue.done(&key("a"), Some(Duration::from_secs(7)));
        assert_eq!(queue.take(Duration::from_secs(6)), None);
        assert_eq!(queue.take(Duration::from_secs(7)), Some(key("a")));
        queue.done(&key("a"), None);
        assert_eq!(queue.next_due(), None);
    }
}
