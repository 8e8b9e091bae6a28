//! What connection tracking is told at start, as kube-proxy tells it (`cmd/kube-proxy/app/server_linux.go`).

use std::time::Duration;

use seaway_kernel::sysctl;

use crate::config::ConntrackSettings;

/// kube-proxy's cap for machines with many cores.
const MOST_CONNECTIONS: u64 = 1_048_576;

/// Settings under `net.netfilter`, with the values that they should have. Pure.
pub fn wanted(settings: &ConntrackSettings, cores: usize) -> Vec<(&'static str, String)> {
    let mut wanted = Vec::new();
    if settings.max_per_core > 0 {
        let by_cores = u64::from(settings.max_per_core).saturating_mul(cores as u64);
        let most = by_cores.min(MOST_CONNECTIONS).max(settings.min.into());
        wanted.push(("nf_conntrack_max", most.to_string()));
    }
    if settings.tcp_be_liberal {
        wanted.push(("nf_conntrack_tcp_be_liberal", "1".to_owned()));
    }
    for (key, timeout) in [
        (
            "nf_conntrack_tcp_timeout_established",
            settings.tcp_established,
        ),
        (
            "nf_conntrack_tcp_timeout_close_wait",
            settings.tcp_close_wait,
        ),
        ("nf_conntrack_udp_timeout", settings.udp),
        ("nf_conntrack_udp_timeout_stream", settings.udp_stream),
    ] {
        if timeout > Duration::ZERO {
            wanted.push((key, timeout.as_secs().max(1).to_string()));
        }
    }
    wanted
}

/// Sets what can be set. A value that is read-only here (in a container, or the limit of connections in a network
/// namespace other than the machine's first) is a warning: traffic works without it. Returns whether everything was
/// there to be set: connection tracking may come with the first rules only.
pub fn apply(settings: &ConntrackSettings) -> bool {
    let mut complete = true;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, value) in wanted(settings, cores) {
        let key = format!("net.netfilter.{name}");
        match sysctl::write(&key, &value) {
            Ok(true) => tracing::info!(key, value, "set"),
            Ok(false) => {}
            Err(error) if error.is_absent() => {
                tracing::debug!(key, "not there yet");
                complete = false;
            }
            Err(error) => tracing::warn!(
                %error,
                "the value stays as it is: set it on the node, or run once with --init-only and all privileges"
            ),
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn text(settings: &ConntrackSettings, cores: usize) -> String {
        let wanted = wanted(settings, cores);
        let lines: Vec<_> = wanted.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        lines.join("\n")
    }

    #[test]
    fn the_defaults_are_kube_proxys() {
        expect![[r#"
            nf_conntrack_max = 131072
            nf_conntrack_tcp_timeout_established = 86400
            nf_conntrack_tcp_timeout_close_wait = 3600"#]]
        .assert_eq(&text(&ConntrackSettings::default(), 2));
    }

    #[test]
    fn the_limit_follows_the_cores_between_minimum_and_cap() {
        let settings = ConntrackSettings::default();
        for (cores, expected) in [(1, "131072"), (8, "262144"), (1000, "1048576")] {
            assert_eq!(wanted(&settings, cores)[0].1, expected, "{cores}");
        }
        // The minimum is the operator's word, whatever the cap.
        let large = ConntrackSettings {
            min: 2_000_000,
            ..settings
        };
        assert_eq!(wanted(&large, 1)[0].1, "2000000");
    }

    #[test]
    fn zero_leaves_the_machines_value() {
        let nothing = ConntrackSettings {
            max_per_core: 0,
            min: 5,
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        };
        assert_eq!(wanted(&nothing, 4), []);
        let all = ConntrackSettings {
            tcp_be_liberal: true,
            udp: Duration::from_millis(1),
            udp_stream: Duration::from_secs(90),
            ..nothing
        };
        expect![[r#"
            nf_conntrack_tcp_be_liberal = 1
            nf_conntrack_udp_timeout = 1
            nf_conntrack_udp_timeout_stream = 90"#]]
        .assert_eq(&text(&all, 4));
    }
}
