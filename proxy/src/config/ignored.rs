//! Flags that have a field in the file: with `--config` the field counts, and a flag that is given all the same is
//! named.

use crate::cli::{NodeArgs, RunArgs};

/// A flag without its dashes, the field in its place, and whether the flag was given.
pub(super) type Flag<A> = (&'static str, &'static str, fn(&A) -> bool);

/// Flags of every command.
pub(super) const OF_NODE: &[Flag<NodeArgs>] = &[
    ("cluster-cidr", "clusterCIDR", |args| {
        !args.cluster_cidr.is_empty()
    }),
    ("detect-local-mode", "detectLocalMode", |args| {
        args.detect_local_mode.is_some()
    }),
    (
        "pod-bridge-interface",
        "detectLocal.bridgeInterface",
        |args| args.pod_bridge_interface.is_some(),
    ),
    (
        "pod-interface-name-prefix",
        "detectLocal.interfaceNamePrefix",
        |args| args.pod_interface_name_prefix.is_some(),
    ),
    ("masquerade-all", "iptables.masqueradeAll", |args| {
        args.masquerade_all
    }),
    ("nodeport-addresses", "nodePortAddresses", |args| {
        !args.nodeport_addresses.is_empty()
    }),
];

/// Flags of the daemon.
pub(super) const OF_RUN: &[Flag<RunArgs>] = &[
    ("healthz-bind-address", "healthzBindAddress", |args| {
        args.healthz_bind_address.is_some()
    }),
    ("metrics-bind-address", "metricsBindAddress", |args| {
        args.metrics_bind_address.is_some()
    }),
    ("oom-score-adj", "oomScoreAdj", |args| {
        args.process.oom_score_adj.is_some()
    }),
    ("conntrack-max-per-core", "conntrack.maxPerCore", |args| {
        args.process.conntrack_max_per_core.is_some()
    }),
    ("conntrack-min", "conntrack.min", |args| {
        args.process.conntrack_min.is_some()
    }),
    (
        "conntrack-tcp-timeout-established",
        "conntrack.tcpEstablishedTimeout",
        |args| args.process.conntrack_tcp_timeout_established.is_some(),
    ),
    (
        "conntrack-tcp-timeout-close-wait",
        "conntrack.tcpCloseWaitTimeout",
        |args| args.process.conntrack_tcp_timeout_close_wait.is_some(),
    ),
    (
        "conntrack-tcp-be-liberal",
        "conntrack.tcpBeLiberal",
        |args| args.process.conntrack_tcp_be_liberal,
    ),
    ("conntrack-udp-timeout", "conntrack.udpTimeout", |args| {
        args.process.conntrack_udp_timeout.is_some()
    }),
    (
        "conntrack-udp-timeout-stream",
        "conntrack.udpStreamTimeout",
        |args| args.process.conntrack_udp_timeout_stream.is_some(),
    ),
];

/// A line for each flag of the list that was given.
pub(super) fn notes<A>(flags: &[Flag<A>], args: &A) -> Vec<String> {
    let given = flags.iter().filter(|(_, _, is_given)| is_given(args));
    given.map(|(flag, field, _)| note(flag, field)).collect()
}

/// The line for one flag.
pub(super) fn note(flag: &str, field: &str) -> String {
    format!(
        "--{flag} is ignored, as in kube-proxy, because --config is given: set {field} in the file"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::config::schema::{FIELDS, Here};

    #[test]
    fn every_flag_and_its_field_exist() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let of_node = OF_NODE.iter().map(|(flag, field, _)| (*flag, *field));
        let of_run = OF_RUN.iter().map(|(flag, field, _)| (*flag, *field));
        for (flag, field) in of_node.chain(of_run) {
            assert!(
                run.get_arguments().any(|arg| arg.get_long() == Some(flag)),
                "--{flag}"
            );
            let mut fields = FIELDS.iter().filter(|known| known.here == Here::Used);
            assert!(fields.any(|known| known.path == field), "{field}");
        }
    }
}
