//! What the kernel must have, asked before anything is loaded. There is no mode in between: what is missing is named, with
//! the kernel that has it.

use std::fmt;
use std::io;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use seaway_kernel::{NetNs, SockDiag};
use serde::Serialize;

use super::error::EbpfError;
use super::sys::{self, AttachType};

/// One thing that the programs need.
#[derive(Debug, Clone, Copy)]
enum Need {
    Program(ProgramType),
    Map(MapType),
    Helper(ProgramType, BpfHelper),
    /// A hook of sockets.
    Hook(AttachType),
    /// `SO_NETNS_COOKIE`.
    NetnsCookie,
    /// Ending UDP sockets.
    SocketDestroy,
}

impl Need {
    /// What is worse without it, if mode ebpf serves all the same.
    fn instead(self) -> Option<&'static str> {
        match self {
            Self::SocketDestroy => Some(
                "without it they stay bound to endpoints that are gone, until their programs connect anew",
            ),
            _ => None,
        }
    }
}

/// A need, how people call it, the kernel that brought it, and what it is for.
struct Feature {
    need: Need,
    name: &'static str,
    since: &'static str,
    why: &'static str,
}

const fn feature(
    need: Need,
    name: &'static str,
    since: &'static str,
    why: &'static str,
) -> Feature {
    Feature {
        need,
        name,
        since,
        why,
    }
}

const TC: ProgramType = ProgramType::SchedClassifier;
const XDP: ProgramType = ProgramType::Xdp;
const SOCKET: ProgramType = ProgramType::CgroupSockAddr;

const fn at_tc(helper: BpfHelper) -> Need {
    Need::Helper(TC, helper)
}

const fn at_socket(helper: BpfHelper) -> Need {
    Need::Helper(SOCKET, helper)
}

/// Everything that we use and that is younger than Linux 4.0, oldest first. Calls of `bpf(2)` are not asked for one by one
/// (batches 5.6, links 5.7 to 5.9): no build of a kernel that has the youngest of these lacks them.
const FEATURES: [Feature; 37] = [
    feature(Need::Program(TC), "tc classifiers", "4.1", "packets"),
    feature(
        at_tc(BpfHelper::BPF_FUNC_get_prandom_u32),
        "bpf_get_prandom_u32",
        "4.1",
        "the choice of an endpoint",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_skb_store_bytes),
        "bpf_skb_store_bytes",
        "4.1",
        "addresses and ports of rewritten packets",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_l4_csum_replace),
        "bpf_l4_csum_replace",
        "4.1",
        "their checksums",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_redirect),
        "bpf_redirect",
        "4.4",
        "packets whose next hop is known",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_skb_load_bytes),
        "bpf_skb_load_bytes",
        "4.5",
        "headers in packets of several pieces",
    ),
    feature(
        Need::Map(MapType::PerCpuArray),
        "per-CPU arrays",
        "4.6",
        "counters",
    ),
    feature(
        Need::Map(MapType::PerCpuHash),
        "per-CPU hash maps",
        "4.6",
        "counts for Services",
    ),
    feature(
        Need::Program(XDP),
        "XDP programs",
        "4.8",
        "established flows at the driver of uplinks",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_csum_update),
        "bpf_csum_update",
        "4.9",
        "checksums of rewritten packets",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_skb_change_tail),
        "bpf_skb_change_tail",
        "4.9",
        "answers to what is refused",
    ),
    feature(
        Need::SocketDestroy,
        "SOCK_DESTROY",
        "4.9",
        "UDP sockets whose endpoint is gone (CONFIG_INET_UDP_DIAG, CONFIG_INET_DIAG_DESTROY)",
    ),
    feature(
        Need::Map(MapType::LruHash),
        "LRU hash maps",
        "4.10",
        "the flow table",
    ),
    feature(
        Need::Map(MapType::LpmTrie),
        "tries of prefixes",
        "4.11",
        "loadBalancerSourceRanges",
    ),
    feature(
        Need::Program(SOCKET),
        "socket hooks of cgroups",
        "4.17",
        "translation at connect()",
    ),
    feature(
        Need::Hook(AttachType::Inet4Connect),
        "hook connect4",
        "4.17",
        "connections over IPv4",
    ),
    feature(
        Need::Hook(AttachType::Inet6Connect),
        "hook connect6",
        "4.17",
        "connections over IPv6",
    ),
    feature(
        Need::Hook(AttachType::Udp4Sendmsg),
        "hook sendmsg4",
        "4.18",
        "unconnected UDP over IPv4",
    ),
    feature(
        Need::Hook(AttachType::Udp6Sendmsg),
        "hook sendmsg6",
        "4.18",
        "unconnected UDP over IPv6",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_fib_lookup),
        "bpf_fib_lookup",
        "4.18",
        "the way to an endpoint",
    ),
    feature(
        Need::Helper(XDP, BpfHelper::BPF_FUNC_fib_lookup),
        "bpf_fib_lookup in XDP",
        "4.18",
        "the same at the driver",
    ),
    feature(
        at_socket(BpfHelper::BPF_FUNC_get_socket_cookie),
        "bpf_get_socket_cookie in socket hooks",
        "4.18",
        "which frontend a socket asked for",
    ),
    feature(
        Need::Hook(AttachType::Udp4Recvmsg),
        "hook recvmsg4",
        "5.2",
        "answers of UDP over IPv4",
    ),
    feature(
        Need::Hook(AttachType::Udp6Recvmsg),
        "hook recvmsg6",
        "5.2",
        "answers of UDP over IPv6",
    ),
    feature(
        at_socket(BpfHelper::BPF_FUNC_get_netns_cookie),
        "bpf_get_netns_cookie in socket hooks",
        "5.7",
        "which sockets are the node's own",
    ),
    feature(
        Need::Map(MapType::RingBuf),
        "ring buffers",
        "5.8",
        "seaway-proxy flows",
    ),
    feature(
        Need::Hook(AttachType::Inet4Getpeername),
        "hook getpeername4",
        "5.8",
        "the name of the other side over IPv4",
    ),
    feature(
        Need::Hook(AttachType::Inet6Getpeername),
        "hook getpeername6",
        "5.8",
        "the name of the other side over IPv6",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_redirect_neigh),
        "bpf_redirect_neigh",
        "5.10",
        "sending past the node's stack",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_redirect_peer),
        "bpf_redirect_peer",
        "5.10",
        "packets between pods of one node",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        "bpf_ktime_get_coarse_ns",
        "5.11",
        "the age of flows",
    ),
    feature(
        at_socket(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        "bpf_ktime_get_coarse_ns in socket hooks",
        "5.11",
        "session affinity",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_check_mtu),
        "bpf_check_mtu",
        "5.12",
        "\"packet too big\" in time",
    ),
    feature(
        Need::NetnsCookie,
        "SO_NETNS_COOKIE",
        "5.14",
        "which sockets are the node's own",
    ),
    feature(
        at_tc(BpfHelper::BPF_FUNC_loop),
        "bpf_loop",
        "5.17",
        "finding an endpoint in a set",
    ),
    feature(
        at_socket(BpfHelper::BPF_FUNC_loop),
        "bpf_loop in socket hooks",
        "5.17",
        "the same",
    ),
    feature(
        at_socket(BpfHelper::BPF_FUNC_set_retval),
        "bpf_set_retval in socket hooks",
        "5.18",
        "ECONNREFUSED at once",
    ),
];

/// A line of what [`report`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    pub name: &'static str,
    pub since: &'static str,
    pub why: &'static str,
    pub there: bool,
    /// What is worse without it, if mode ebpf serves all the same.
    pub instead: Option<&'static str>,
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = if self.there { "yes" } else { "MISSING" };
        let Self {
            name, since, why, ..
        } = self;
        write!(f, "{name:<40} {since:<6} {there:<8} {why}")?;
        match self.instead {
            Some(instead) if !self.there => write!(f, ": {instead}"),
            _ => Ok(()),
        }
    }
}

/// Asks the kernel for everything that the programs need, and says of each whether it is there.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub fn report() -> Result<Vec<Probed>, EbpfError> {
    report_with(ask)
}

/// Asks the kernel for everything that the programs need.
///
/// # Errors
///
/// Names the first thing that is missing and the kernel that has it.
pub fn check() -> Result<(), EbpfError> {
    check_with(ask)
}

fn ask(need: Need) -> Result<bool, EbpfError> {
    let failed = |error: &(dyn std::error::Error + 'static)| match forbidden(error) {
        Some(cause) => EbpfError::Forbidden { cause },
        None => EbpfError::load("a probe", error),
    };
    match need {
        Need::Program(program) => is_program_supported(program).map_err(|e| failed(&e)),
        Need::Map(map) => is_map_supported(map).map_err(|e| failed(&e)),
        Need::Helper(program, helper) => {
            is_helper_supported(program, helper).map_err(|e| failed(&e))
        }
        Need::Hook(hook) => sys::has_socket_hook(hook).map_err(|e| failed(&e)),
        Need::NetnsCookie => Ok(NetNs::current()?.cookie().is_ok()),
        Need::SocketDestroy => Ok(SockDiag::open()?.can_destroy()?),
    }
}

/// The refusal among the causes of an error, if it is one.
fn forbidden(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let codes = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    codes
        .map(io::Error::from_raw_os_error)
        .find(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

fn report_with(
    supported: impl Fn(Need) -> Result<bool, EbpfError>,
) -> Result<Vec<Probed>, EbpfError> {
    let probed = FEATURES.iter().map(|feature| {
        Ok(Probed {
            name: feature.name,
            since: feature.since,
            why: feature.why,
            there: supported(feature.need)?,
            instead: feature.need.instead(),
        })
    });
    probed.collect()
}

fn check_with(supported: impl Fn(Need) -> Result<bool, EbpfError>) -> Result<(), EbpfError> {
    let needed = FEATURES
        .iter()
        .filter(|feature| feature.need.instead().is_none());
    for feature in needed {
        if !supported(feature.need)? {
            return Err(EbpfError::Feature {
                feature: feature.name,
                since: feature.since,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aya::programs::ProgramError;
    use aya::sys::SyscallError;
    use nix::libc;

    use super::*;

    #[test]
    fn this_kernel_has_everything() {
        check().expect("the kernel that runs the tests");
        for probed in report().expect("the same") {
            assert!(probed.there, "{probed}");
        }
    }

    #[test]
    fn what_can_be_done_without_is_told_and_not_refused() {
        let without = |need| Ok(!matches!(need, Need::SocketDestroy));
        check_with(without).expect("all that is needed");
        let probed = report_with(without).expect("a report");
        let missing: Vec<String> = probed
            .iter()
            .filter(|probed| !probed.there)
            .map(ToString::to_string)
            .collect();
        let [line] = missing.as_slice() else {
            panic!("{missing:?}");
        };
        assert!(
            line.contains("CONFIG_INET_DIAG_DESTROY") && line.contains("until"),
            "{line}"
        );
    }

    #[test]
    fn a_hook_that_no_kernel_has_is_not_there() {
        // Programs of sockets cannot be attached to links.
        assert!(!sys::has_socket_hook(AttachType::TcxIngress).expect("an answer"));
    }

    #[test]
    fn what_is_missing_is_named_with_its_version() {
        let error = check_with(|need| {
            Ok(!matches!(
                need,
                Need::Helper(_, BpfHelper::BPF_FUNC_redirect_neigh)
            ))
        })
        .expect_err("one helper is missing");
        assert_eq!(
            error.to_string(),
            "eBPF mode needs bpf_redirect_neigh (Linux 5.10), which this kernel does not have: `seaway-proxy check --mode ebpf` lists \
             all that it needs, --mode iptables does without"
        );
    }

    #[test]
    fn a_system_call_that_is_refused_is_no_missing_feature() {
        let probe = |code| {
            ProgramError::SyscallError(SyscallError {
                call: "bpf_prog_load",
                io_error: io::Error::from_raw_os_error(code),
            })
        };
        for code in [libc::EPERM, libc::EACCES] {
            assert!(forbidden(&probe(code)).is_some(), "{code}");
        }
        assert!(forbidden(&probe(libc::ENOMEM)).is_none());
        assert!(forbidden(&io::Error::from_raw_os_error(libc::EPERM)).is_some());
    }

    /// Each by itself, as if it were the only one that a kernel lacks.
    #[test]
    fn whatever_is_missing_is_refused_by_its_own_name() {
        let needed: Vec<&Feature> = FEATURES
            .iter()
            .filter(|feature| feature.need.instead().is_none())
            .collect();
        assert_eq!(needed.len() + 1, FEATURES.len());
        for (i, lacking) in needed.iter().enumerate() {
            let left = std::cell::Cell::new(i);
            let answer = |_| {
                let there = left.get() != 0;
                left.set(left.get().wrapping_sub(1));
                Ok(there)
            };
            let Err(EbpfError::Feature { feature, since }) = check_with(answer) else {
                panic!("{} went unnoticed", lacking.name);
            };
            assert_eq!((feature, since), (lacking.name, lacking.since));
            let version = |text: &str| {
                let (major, minor) = text.split_once('.').expect("major.minor");
                (major.parse::<u32>().ok(), minor.parse::<u32>().ok())
            };
            assert!(version(since) >= (Some(4), Some(0)), "{since}");
            if let Some(before) = i.checked_sub(1) {
                assert!(version(needed[before].since) <= version(since), "{since}");
            }
        }
    }
}
