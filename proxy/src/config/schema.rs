//! Every field of `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1, Kubernetes 1.36), and what it means here.

use Kind::{Bool, Gates, Int, List, Number, Object, Span, Text};

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// A whole number within these limits.
    Int(i64, i64),
    Number,
    Text,
    /// A duration as Go writes it.
    Span,
    /// A list of strings.
    List,
    /// Feature names with booleans.
    Gates,
    /// Not looked into: nothing in it means anything here.
    Object,
}

/// What a field does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// It is a setting of ours.
    Used,
    /// It is not. A value other than kube-proxy's default (or the zero value, if it reads that as unset) is named,
    /// with this advice.
    Named {
        default: &'static str,
        advice: &'static str,
    },
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// From the top, with dots.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) here: Here,
}

const fn used(path: &'static str, kind: Kind) -> Field {
    Field {
        path,
        kind,
        here: Here::Used,
    }
}

const fn named(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    advice: &'static str,
) -> Field {
    Field {
        path,
        kind,
        here: Here::Named { default, advice },
    }
}

const I32: Kind = Int(i32::MIN as i64, i32::MAX as i64);
const COUNT: Kind = Int(0, i32::MAX as i64);
const BIT: Kind = Int(0, 31);

const AT_ONCE: &str =
    "has no effect: changes are programmed as they come, and cost what changed; remove it";
const AUDIT: &str =
    "has no effect: the kernel is watched all the time, not at intervals; remove it";
const WATCHES: &str = "has no effect: three watches are all that is asked of the API; remove it";
const JSON_ONLY: &str = "has no effect: the API is spoken to in JSON; remove it";
const MARK: &str = "has no effect: the packet mark is fixed, mask 0x000f0000; make sure that nothing else on the node \
                    uses these bits, then remove it";
const IPVS: &str = "has no effect: there is no mode ipvs; remove it";
const WINDOWS: &str = "has no effect: this is not Windows; remove it";
const LOGS: &str = "has no effect: what is logged is set by RUST_LOG (as RUST_LOG=debug), the form by --log-format; remove it";

/// All fields. A test holds this list against the file that kubeadm writes.
pub(super) static FIELDS: &[Field] = &[
    used("apiVersion", Text),
    used("kind", Text),
    used("featureGates", Gates),
    used("clientConnection.kubeconfig", Text),
    named(
        "clientConnection.acceptContentTypes",
        Text,
        "application/json",
        JSON_ONLY,
    ),
    named(
        "clientConnection.contentType",
        Text,
        "application/vnd.kubernetes.protobuf",
        JSON_ONLY,
    ),
    named("clientConnection.qps", Number, "5", WATCHES),
    named("clientConnection.burst", I32, "10", WATCHES),
    named("logging.format", Text, "text", LOGS),
    named("logging.flushFrequency", Object, "5s", LOGS),
    named("logging.verbosity", COUNT, "0", LOGS),
    named("logging.vmodule", Object, "", LOGS),
    named("logging.options.text.splitStream", Bool, "false", LOGS),
    named("logging.options.text.infoBufferSize", Object, "0", LOGS),
    named("logging.options.json.splitStream", Bool, "false", LOGS),
    named("logging.options.json.infoBufferSize", Object, "0", LOGS),
    used("hostnameOverride", Text),
    used("bindAddress", Text),
    used("healthzBindAddress", Text),
    used("metricsBindAddress", Text),
    named(
        "bindAddressHardFail",
        Bool,
        "true",
        "is always on: a port that cannot be had ends the daemon with the name of its flag; remove it",
    ),
    named(
        "enableProfiling",
        Bool,
        "false",
        "has no effect: there is no pprof; use perf(1) on the process, then remove it",
    ),
    named(
        "showHiddenMetricsForVersion",
        Text,
        "",
        "has no effect: no metric is hidden; remove it",
    ),
    used("mode", Text),
    named("iptables.masqueradeBit", BIT, "14", MARK),
    used("iptables.masqueradeAll", Bool),
    named(
        "iptables.localhostNodePorts",
        Bool,
        "false",
        "is not offered: node ports do not answer on loopback addresses, which would need route_localnet; use an \
         address of the node, then set it to false",
    ),
    named(
        "iptables.snatNodeInternalIP",
        Bool,
        "false",
        "is not offered: masqueraded traffic has the address of the link that it leaves by; remove it",
    ),
    named("iptables.syncPeriod", Span, "30s", AUDIT),
    named("iptables.minSyncPeriod", Span, "1s", AT_ONCE),
    named("ipvs.syncPeriod", Span, "30s", IPVS),
    named("ipvs.minSyncPeriod", Span, "1s", IPVS),
    named("ipvs.scheduler", Text, "", IPVS),
    named("ipvs.excludeCIDRs", List, "", IPVS),
    named("ipvs.strictARP", Bool, "false", IPVS),
    named("ipvs.tcpTimeout", Span, "0s", IPVS),
    named("ipvs.tcpFinTimeout", Span, "0s", IPVS),
    named("ipvs.udpTimeout", Span, "0s", IPVS),
    named("nftables.masqueradeBit", BIT, "14", MARK),
    named(
        "nftables.masqueradeAll",
        Bool,
        "false",
        "has no effect: there is no mode nftables; set iptables.masqueradeAll, which counts in every mode here",
    ),
    named("nftables.syncPeriod", Span, "30s", AUDIT),
    named("nftables.minSyncPeriod", Span, "1s", AT_ONCE),
    named("winkernel.networkName", Text, "", WINDOWS),
    named("winkernel.sourceVip", Text, "", WINDOWS),
    named("winkernel.enableDSR", Bool, "false", WINDOWS),
    named("winkernel.rootHnsEndpointName", Text, "", WINDOWS),
    named("winkernel.forwardHealthCheckVip", Bool, "false", WINDOWS),
    used("detectLocalMode", Text),
    used("detectLocal.bridgeInterface", Text),
    used("detectLocal.interfaceNamePrefix", Text),
    used("clusterCIDR", Text),
    used("nodePortAddresses", List),
    used("oomScoreAdj", Int(-1000, 1000)),
    used("conntrack.maxPerCore", COUNT),
    used("conntrack.min", COUNT),
    used("conntrack.tcpEstablishedTimeout", Span),
    used("conntrack.tcpCloseWaitTimeout", Span),
    used("conntrack.tcpBeLiberal", Bool),
    used("conntrack.udpTimeout", Span),
    used("conntrack.udpStreamTimeout", Span),
    named(
        "configSyncPeriod",
        Span,
        "15m",
        "has no effect: watches are resumed, not repeated; remove it",
    ),
    named(
        "portRange",
        Text,
        "",
        "has no effect, as in kube-proxy; remove it",
    ),
    named("windowsRunAsService", Bool, "false", WINDOWS),
    // Fields of kube-proxy before 1.25, still in files of clusters that were upgraded.
    named(
        "udpIdleTimeout",
        Span,
        "250ms",
        "belonged to kube-proxy's mode userspace, which is gone; remove it",
    ),
];
