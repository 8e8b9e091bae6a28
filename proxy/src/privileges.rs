//! What the kernel lets this process do, asked before anything is touched.

use anyhow::Context as _;

use crate::cli::Mode;

/// A capability by its bit (linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Capability {
    bit: u32,
    name: &'static str,
}

const NET_ADMIN: Capability = Capability {
    bit: 12,
    name: "CAP_NET_ADMIN",
};
const NET_RAW: Capability = Capability {
    bit: 13,
    name: "CAP_NET_RAW",
};
const SYS_ADMIN: Capability = Capability {
    bit: 21,
    name: "CAP_SYS_ADMIN",
};

/// What a mode cannot do without.
fn needed(mode: Mode) -> &'static [Capability] {
    match mode {
        // The legacy variant talks to the tables through a raw socket.
        Mode::Iptables => &[NET_ADMIN, NET_RAW],
        // Programs for packets; the namespace that a thread was started in is entered again. The latter includes
        // CAP_BPF and CAP_PERFMON.
        Mode::Ebpf => &[NET_ADMIN, SYS_ADMIN],
    }
}

/// The names of the capabilities that a mode cannot do without.
pub fn names(mode: Mode) -> Vec<&'static str> {
    missing(mode, 0)
}

/// Says which capabilities this process lacks for a mode, if any.
pub fn check(mode: Mode) -> anyhow::Result<()> {
    let file = "/proc/self/status";
    let status = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let held = effective(&status).with_context(|| format!("{file} has no line CapEff"))?;
    let missing = missing(mode, held);
    anyhow::ensure!(
        missing.is_empty(),
        "mode {} needs {}, which this process does not have: run it as root, or grant it (systemd: \
         AmbientCapabilities; a Pod: securityContext.capabilities)",
        mode.as_str(),
        missing.join(", ")
    );
    Ok(())
}

/// The effective set, from the text of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(mode: Mode, held: u64) -> Vec<&'static str> {
    needed(mode)
        .iter()
        .filter(|capability| held & (1 << capability.bit) == 0)
        .map(|capability| capability.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_per_mode() {
        let all = u64::MAX;
        let without = |capability: Capability| all & !(1 << capability.bit);
        for (mode, held, expected) in [
            (Mode::Iptables, all, &[][..]),
            (Mode::Ebpf, all, &[]),
            (Mode::Iptables, without(NET_RAW), &["CAP_NET_RAW"]),
            (Mode::Iptables, without(SYS_ADMIN), &[]),
            (Mode::Ebpf, without(SYS_ADMIN), &["CAP_SYS_ADMIN"]),
            (Mode::Ebpf, without(NET_RAW), &[]),
            (Mode::Iptables, 0, &["CAP_NET_ADMIN", "CAP_NET_RAW"]),
        ] {
            assert_eq!(missing(mode, held), expected, "{mode:?} {held:x}");
        }
    }

    #[test]
    fn the_effective_set_is_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
