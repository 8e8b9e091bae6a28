//! What a mode needs that the kernel lets this process do, asked before anything is touched.

use seaway_daemon::privileges::{Capability, require};

use crate::cli::Mode;

/// What a mode cannot do without.
fn needed(mode: Mode) -> &'static [Capability] {
    match mode {
        // The legacy variant talks to the tables through a raw socket.
        Mode::Iptables => &[Capability::NET_ADMIN, Capability::NET_RAW],
        // Programs for packets; the namespace that a thread was started in is entered again. The latter includes
        // CAP_BPF and CAP_PERFMON.
        Mode::Ebpf => &[Capability::NET_ADMIN, Capability::SYS_ADMIN],
    }
}

/// The names of the capabilities that a mode cannot do without.
pub fn names(mode: Mode) -> Vec<&'static str> {
    needed(mode).iter().map(|one| one.name).collect()
}

/// Says which capabilities this process lacks for a mode, if any.
pub fn check(mode: Mode) -> anyhow::Result<()> {
    Ok(require(&format!("mode {}", mode.as_str()), needed(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_its_own() {
        assert_eq!(names(Mode::Iptables), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(names(Mode::Ebpf), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }
}
