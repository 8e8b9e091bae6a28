//! What the kernel must have, asked before anything is loaded.

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};

use super::error::EbpfError;

/// One thing that the programs need.
#[derive(Debug, Clone, Copy)]
enum Need {
    Program(ProgramType),
    Map(MapType),
    Helper(ProgramType, BpfHelper),
}

/// What is needed, how people call it, and the kernel that brought it.
const NEEDS: [(Need, &str, &str); 14] = [
    (
        Need::Program(ProgramType::SchedClassifier),
        "tc classifiers in eBPF",
        "4.1",
    ),
    (
        Need::Program(ProgramType::CgroupSockAddr),
        "socket hooks of cgroups",
        "4.17",
    ),
    (Need::Map(MapType::LruHash), "LRU hash maps", "4.10"),
    (Need::Map(MapType::LpmTrie), "tries of prefixes", "4.11"),
    (
        Need::Helper(
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_skb_change_tail,
        ),
        "bpf_skb_change_tail",
        "4.9",
    ),
    (
        Need::Helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_fib_lookup),
        "bpf_fib_lookup",
        "4.18",
    ),
    (
        Need::Helper(
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_redirect_neigh,
        ),
        "bpf_redirect_neigh",
        "5.10",
    ),
    (
        Need::Helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_check_mtu),
        "bpf_check_mtu",
        "5.12",
    ),
    (
        Need::Helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_loop),
        "bpf_loop",
        "5.17",
    ),
    (
        Need::Helper(
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_get_prandom_u32,
        ),
        "bpf_get_prandom_u32",
        "4.1",
    ),
    (
        Need::Helper(
            ProgramType::CgroupSockAddr,
            BpfHelper::BPF_FUNC_get_socket_cookie,
        ),
        "bpf_get_socket_cookie in socket hooks",
        "4.18",
    ),
    (
        Need::Helper(
            ProgramType::CgroupSockAddr,
            BpfHelper::BPF_FUNC_get_netns_cookie,
        ),
        "bpf_get_netns_cookie in socket hooks",
        "5.7",
    ),
    (
        Need::Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_loop),
        "bpf_loop in socket hooks",
        "5.17",
    ),
    (
        Need::Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval),
        "bpf_set_retval in socket hooks",
        "5.18",
    ),
];

/// Asks the kernel for everything that the programs need.
///
/// # Errors
///
/// Names the first thing that is missing and the kernel that has it.
pub fn check() -> Result<(), EbpfError> {
    check_with(|need| match need {
        Need::Program(program) => {
            is_program_supported(program).map_err(|error| EbpfError::load("a probe", &error))
        }
        Need::Map(map) => is_map_supported(map).map_err(|error| EbpfError::load("a probe", &error)),
        Need::Helper(program, helper) => {
            is_helper_supported(program, helper).map_err(|error| EbpfError::load("a probe", &error))
        }
    })
}

fn check_with(supported: impl Fn(Need) -> Result<bool, EbpfError>) -> Result<(), EbpfError> {
    for (need, feature, since) in NEEDS {
        if !supported(need)? {
            return Err(EbpfError::Feature { feature, since });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_everything() {
        check().expect("the kernel that runs the tests");
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
            "eBPF mode needs bpf_redirect_neigh (Linux 5.10), which this kernel does not have"
        );
    }
}
