//! `kill -9` before every system call of ADD and of DEL: what comes after cleans up, and no address is used twice. Both are one
//! process and one thread, which starts no program.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use seaway_cni::attachment::host_link;
use seaway_cni::bandwidth::Shaping;
use seaway_cni::protocol::{Bandwidth, OwnerKey};
use seaway_kernel::{Nftables, RouteFilter, RouteSocket, TABLE_MAIN};
use seaway_model::ownership::ROUTE_PROTOCOL;
use serde_json::{Value, json};

use crate::support::{Namespace, Node, addresses, environment};

const LIMITS: Bandwidth = Bandwidth {
    ingress_rate: 8_000_000,
    ingress_burst: 8_000_000,
    egress_rate: 16_000_000,
    egress_burst: 16_000_000,
};

/// A pod with everything: two families, a host port, limits in both directions.
fn config(node: &Node) -> Value {
    let mut config = node.config("1.1.0");
    config["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
        "bandwidth": {
            "ingressRate": LIMITS.ingress_rate, "ingressBurst": LIMITS.ingress_burst,
            "egressRate": LIMITS.egress_rate, "egressBurst": LIMITS.egress_burst,
        },
    });
    config
}

/// Runs a verb, and kills it before its system call of that number, counted from the one that reads the input. Answers
/// whether it came so far.
fn killed(node: &Node, verb: &str, id: &str, netns: &str, number: usize) -> bool {
    let spawn = || {
        Command::new(env!("CARGO_BIN_EXE_seaway-cni"))
            .env_clear()
            .envs(environment(verb, id, netns))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = node.space.netns.run(spawn).unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    // Wherever it is: beyond the read of its input it cannot be yet.
    let others = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | others).unwrap();
    ptrace::interrupt(pid).unwrap();
    waitpid(pid, None).unwrap();
    let input = config(node).to_string();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let came = before_call(pid, number);
    if came {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    // One that ended by itself was waited for when it was traced.
    let ended = child.wait();
    if came {
        assert_eq!(ended.unwrap().signal(), Some(9));
    }
    came
}

/// Lets it run to just before that call; `false` if it ended earlier, as it should end.
fn before_call(pid: Pid, number: usize) -> bool {
    let mut entered = None;
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take()).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                let info = ptrace::syscall_info(pid).unwrap();
                if info.op != nix::libc::PTRACE_SYSCALL_INFO_ENTRY {
                    continue;
                }
                entered = match entered {
                    Some(calls) => Some(calls + 1),
                    None => is_reading_input(pid).then_some(0),
                };
                if entered == Some(number) {
                    return true;
                }
            }
            WaitStatus::Exited(_, status) => {
                assert_eq!(status, 0);
                return false;
            }
            WaitStatus::Stopped(_, of) => signal = Some(of),
            WaitStatus::PtraceEvent(_, _, event) => {
                assert_eq!(
                    event,
                    nix::libc::PTRACE_EVENT_STOP,
                    "another process or program"
                );
            }
            _ => {}
        }
    }
}

/// On a busy machine it is stopped before it gets there. Counted from where it happens to be, one walk would be a mixture of
/// several, and be over before the last calls of most of them.
fn is_reading_input(pid: Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    call.starts_with(&format!("{} 0x0 ", nix::libc::SYS_read))
}

/// Nothing is there of any pod but the one that stays.
async fn assert_clean(node: &Node, keeper: &Value, when: &str) {
    assert_eq!(node.leases().await, addresses(keeper), "{when}");
    let links = RouteSocket::in_namespace(&node.space.netns)
        .unwrap()
        .links()
        .unwrap();
    let ours = links
        .iter()
        .filter(|link| link.name.starts_with("sw") || link.name.starts_with("sb"));
    assert_eq!(ours.count(), 1, "{when}: {links:?}");
    let mut nft = Nftables::in_namespace(&node.space.netns).unwrap();
    for set in ["any4", "any6", "hairpin4", "hairpin6"] {
        let elements = nft.elements("seaway-cni", set).unwrap().unwrap_or_default();
        assert_eq!(elements, [], "{when}");
    }
}

/// Whether the node has a way to the pod. Who finds one finds the limits, too: the proxy sends packets of pods without limits past
/// the place where they act.
fn is_reached_within_limits(node: &Node, when: &str) -> bool {
    let owner = OwnerKey {
        container_id: "c".into(),
        ifname: "eth0".into(),
    };
    let mut host = RouteSocket::in_namespace(&node.space.netns).unwrap();
    let Some(end) = host.link(&host_link(&owner)).unwrap() else {
        return false;
    };
    let to_pod = RouteFilter {
        table: Some(TABLE_MAIN),
        link: Some(end.index),
        protocol: Some(ROUTE_PROTOCOL),
    };
    let reached = !host.routes(to_pod).unwrap().is_empty();
    if reached {
        let limits = Shaping::new(&owner, LIMITS, None).unwrap().unwrap();
        let checked = limits.check(&mut host, end.index);
        checked.unwrap_or_else(|error| panic!("{when}: {error}"));
    }
    reached
}

async fn gc_but(node: &Node, keeper: &str) {
    let mut gc = node.config("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": keeper, "ifname": "eth0" }]);
    node.call("GC", "", "", gc).await.unwrap();
}

#[tokio::test]
async fn an_add_killed_before_any_system_call_leaves_nothing_behind_del_or_gc() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let (keeper_pod, other_pod) = (Namespace::new("pod"), Namespace::new("pod"));
    let keeper = node.add("keeper", &keeper_pod).await.unwrap();
    let (mut number, mut reached) = (0, 0);
    loop {
        let pod = Namespace::new("pod");
        let when = format!("before call {number}");
        let came = killed(&node, "ADD", "c", &pod.path(), number);
        reached += usize::from(is_reached_within_limits(&node, &when));
        // While its remains are there, another pod gets an address of its own.
        let other = node.add("other", &other_pod).await.unwrap();
        let leases = node.leases().await;
        let own = addresses(&other);
        assert!(own.iter().all(|ip| leases.contains(ip)), "{when}");
        let different: BTreeSet<_> = leases.iter().collect();
        assert_eq!(different.len(), leases.len(), "{when}: {leases:?}");
        node.check("other", &other_pod, &other).await.unwrap();
        node.del("other", &other_pod.path()).await.unwrap();
        if number % 2 == 0 {
            let del = node
                .call("DEL", "c", &pod.path(), node.config("1.0.0"))
                .await;
            del.unwrap_or_else(|e| panic!("{when}: {e:?}"));
        } else {
            gc_but(&node, "keeper").await;
        }
        assert_clean(&node, &keeper, &when).await;
        assert!(
            pod.netlink().link("eth0").await.unwrap().is_none(),
            "{when}"
        );
        if !came {
            break;
        }
        number += 1;
    }
    // It would prove nothing if the walk had ended early.
    assert!(number > 40, "{number} system calls");
    assert!(reached > 10, "{reached} times a way to the pod");
    node.check("keeper", &keeper_pod, &keeper).await.unwrap();
}

#[tokio::test]
async fn a_del_killed_before_any_system_call_is_finished_by_the_next() {
    let node = Node::new(&["10.244.1.0/24", "fd00:1::/64"]).await;
    let keeper_pod = Namespace::new("pod");
    let keeper = node.add("keeper", &keeper_pod).await.unwrap();
    let mut number = 0;
    loop {
        let pod = Namespace::new("pod");
        let when = format!("before call {number}");
        node.call("ADD", "c", &pod.path(), config(&node))
            .await
            .unwrap();
        let came = killed(&node, "DEL", "c", &pod.path(), number);
        if number % 2 == 0 {
            node.del("c", "").await.unwrap();
        } else {
            gc_but(&node, "keeper").await;
        }
        assert_clean(&node, &keeper, &when).await;
        if !came {
            break;
        }
        number += 1;
    }
    assert!(number > 20, "{number} system calls");
    node.check("keeper", &keeper_pod, &keeper).await.unwrap();
}
