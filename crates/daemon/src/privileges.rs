//! What the kernel lets this process do, asked before anything is touched.

use std::io::{Error, ErrorKind};

/// A capability by its bit (linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    bit: u32,
    /// As in capabilities(7).
    pub name: &'static str,
}

impl Capability {
    pub const NET_ADMIN: Self = Self {
        bit: 12,
        name: "CAP_NET_ADMIN",
    };
    pub const NET_RAW: Self = Self {
        bit: 13,
        name: "CAP_NET_RAW",
    };
    pub const SYS_ADMIN: Self = Self {
        bit: 21,
        name: "CAP_SYS_ADMIN",
    };
}

/// Checks that this process has what `who` needs.
///
/// # Errors
/// Names what is missing, and how to get it.
pub fn require(who: &str, needed: &[Capability]) -> std::io::Result<()> {
    let file = "/proc/self/status";
    let failed = |problem: String| Error::other(format!("{file}: {problem}"));
    let status = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let held = effective(&status).ok_or_else(|| failed("no line CapEff".to_owned()))?;
    let missing = missing(needed, held);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "{who} needs {}, which this process does not have: run it as root, or grant it (systemd: AmbientCapabilities; a Pod: \
             securityContext.capabilities)",
            missing.join(", ")
        ),
    ))
}

/// The effective set, from the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(needed: &[Capability], held: u64) -> Vec<&'static str> {
    needed
        .iter()
        .filter(|capability| held & (1 << capability.bit) == 0)
        .map(|capability| capability.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = u64::MAX;
        let without = |capability: Capability| all & !(1 << capability.bit);
        let both = [Capability::NET_ADMIN, Capability::NET_RAW];
        for (held, expected) in [
            (all, &[][..]),
            (without(Capability::NET_RAW), &["CAP_NET_RAW"]),
            (without(Capability::SYS_ADMIN), &[]),
            (0, &["CAP_NET_ADMIN", "CAP_NET_RAW"]),
        ] {
            assert_eq!(missing(&both, held), expected, "{held:x}");
        }
    }

    #[test]
    fn the_effective_set_is_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
