//! Lists of addresses that iptables rules keep (`-m recent`), in `/proc/net/xt_recent`: read, and written to.
//!
//! They are those of the calling thread's network namespace. Times are the kernel's ticks since it came up (`jiffies`), which
//! begin five minutes before they overflow 32 bits (`INITIAL_JIFFIES`) and go in step with `CLOCK_MONOTONIC`.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};

use crate::Error;

/// Not `/proc/net`, which is that of the process's first thread.
const LISTS: &str = "/proc/thread-self/net/xt_recent";

/// How long the kernel counts before 32 bits overflow for the first time.
const BEFORE_OVERFLOW: Duration = Duration::from_secs(300);

/// An address on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    pub address: IpAddr,
    /// Since a rule last saw it.
    pub age: Duration,
}

/// What is on a list; `None` if no rule has one of that name.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(list: &str) -> Result<Option<Vec<Remembered>>, Error> {
    let path = path(list)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path.display().to_string(), error)),
    };
    let clock = Clock::now()?;
    Ok(Some(
        text.lines()
            .filter_map(|line| parse(line, &clock))
            .collect(),
    ))
}

/// Puts addresses on a list as if packets of them had come now, in this order: a full list gives up those that came
/// first. Returns whether there is such a list.
///
/// # Errors
///
/// If it cannot be written.
pub fn remember(list: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<bool, Error> {
    tell(list, '+', addresses)
}

/// Takes addresses off a list; those that are not on it are fine. Returns whether there is such a list.
///
/// # Errors
///
/// If it cannot be written.
pub fn forget(list: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<bool, Error> {
    tell(list, '-', addresses)
}

fn tell(
    list: &str,
    what: char,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<bool, Error> {
    let path = path(list)?;
    let failed = |error| Error::io("write", path.display().to_string(), error);
    let mut file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    for address in addresses {
        // One command a call, and each at the beginning.
        file.rewind()
            .and_then(|()| file.write_all(format!("{what}{address}\n").as_bytes()))
            .map_err(failed)?;
    }
    Ok(true)
}

fn path(list: &str) -> Result<PathBuf, Error> {
    if list.is_empty() || list.starts_with('.') || list.contains('/') {
        return Err(Error::Invalid {
            object: format!("list of addresses {list:?}"),
            reason: "it must be a plain file name".into(),
        });
    }
    Ok(PathBuf::from(LISTS).join(list))
}

/// What time it is in ticks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Of `CLOCK_MONOTONIC`.
    now: Duration,
    /// A tick.
    tick: Duration,
}

impl Clock {
    fn now() -> Result<Self, Error> {
        let failed = |errno: nix::Error| Error::io("read", "the clock", errno);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(failed)?;
        // It moves on with each tick (`CONFIG_HZ`).
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(failed)?;
        Ok(Self {
            now: now.into(),
            tick: Duration::from(tick).max(Duration::from_nanos(1)),
        })
    }

    /// How long ago something was; zero for what cannot have been.
    fn since(&self, ticks: u64) -> Duration {
        let per_second = (Duration::from_secs(1).as_nanos() / self.tick.as_nanos()) as u64;
        let first = (1_u64 << 32) - BEFORE_OVERFLOW.as_secs() * per_second;
        let now = (self.now.as_nanos() / self.tick.as_nanos()) as u64;
        let since = now.saturating_sub(ticks.saturating_sub(first));
        match ticks < first {
            true => Duration::ZERO,
            false => Duration::from_nanos(since.saturating_mul(self.tick.as_nanos() as u64)),
        }
    }
}

/// A line of `recent_seq_show` (net/netfilter/xt_recent.c).
fn parse(line: &str, clock: &Clock) -> Option<Remembered> {
    let address = line.strip_prefix("src=")?.split(' ').next()?.parse().ok()?;
    let mut words = line.split(' ');
    words.find(|word| *word == "last_seen:")?;
    let ticks = words.next()?.parse().ok()?;
    let age = clock.since(ticks);
    Some(Remembered { address, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        now: Duration::from_secs(1000),
        tick: Duration::from_millis(4),
    };

    #[test]
    fn a_line_says_who_and_how_long_ago() {
        // 250 ticks a second; ten seconds ago.
        let then: u64 = (1 << 32) - 300 * 250 + 990 * 250;
        for (text, address) in [
            ("src=10.244.1.5 ttl: 64", "10.244.1.5"),
            (
                "src=fd00:0010:0244:0001:0000:0000:0000:0005 ttl: 63",
                "fd00:10:244:1::5",
            ),
        ] {
            let line = format!("{text} last_seen: {then} oldest_pkt: 2 17, {then}");
            let parsed = parse(&line, &CLOCK).unwrap();
            assert_eq!(parsed.address, address.parse::<IpAddr>().unwrap());
            assert_eq!(parsed.age, Duration::from_secs(10));
        }
        for line in [
            "",
            "src=",
            "src=10.0.0.1",
            "src=x last_seen: 1",
            "last_seen: 7",
        ] {
            assert_eq!(parse(line, &CLOCK), None, "{line}");
        }
    }

    #[test]
    fn what_cannot_have_been_was_now() {
        for ticks in [0, 17, u64::MAX] {
            assert_eq!(CLOCK.since(ticks), Duration::ZERO, "{ticks}");
        }
    }

    #[test]
    fn a_list_is_a_plain_name() {
        for name in ["", ".", "..", "a/b", "/etc/passwd"] {
            assert!(read(name).is_err() && remember(name, []).is_err(), "{name}");
        }
        assert_eq!(read("seaway-nobody-has-this").unwrap(), None);
        assert!(!remember("seaway-nobody-has-this", []).unwrap());
    }
}
