//! From one process to the next, in the middle of traffic: never a moment without a program, never one with two.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use aya::programs::{SchedClassifier, TcAttachType};
use seaway_ebpf_abi::programs;
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::EbpfConfig;

use crate::growth::Traffic;
use crate::world::{LOCAL_POD, NODE_IP, POD_LINK, REMOTE_POD, World, service, sync};

const LINKS: [&str; 3] = ["eth0", "seaway.vxlan", POD_LINK];

/// How many programs there are at each hook of the node, as the kernel says.
fn attached(world: &World, tcx: bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let node = world.netns("node");
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let _inside = node.enter().unwrap();
    for link in LINKS {
        for (name, direction) in [
            ("ingress", TcAttachType::Ingress),
            ("egress", TcAttachType::Egress),
        ] {
            let count = if tcx {
                let (_, programs) = SchedClassifier::query_tcx(link, direction).unwrap();
                programs.len()
            } else {
                let filters = said(Command::new("tc").args(["filter", "show", "dev", link, name]));
                filters.matches("direct-action").count()
            };
            counts.insert(format!("{link} {name}"), count);
        }
    }
    let cgroup = world.cgroup.display().to_string();
    let hooks = said(Command::new("bpftool").args(["cgroup", "show", &cgroup]));
    for name in programs::SOCKET {
        let count = hooks
            .split_whitespace()
            .filter(|word| *word == name)
            .count();
        counts.insert(name.to_owned(), count);
    }
    counts
}

/// Every hook of ours has one program.
fn once_each(attached: &BTreeMap<String, usize>) {
    assert!(attached.values().all(|count| *count == 1), "{attached:?}");
}

async fn hands_over(tcx: bool) {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let config = EbpfConfig {
        tcx: Some(tcx),
        ..world.config()
    };
    let desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    let mut plane = world.plane(config.clone());
    sync(&mut plane, &desired).await;
    let before = attached(&world, tcx);
    once_each(&before);
    let traffic = Traffic::start(&world);
    for turn in 0..5 {
        // The one before is still there, as it is when the next one is started too early.
        let mut next = world.plane(config.clone());
        sync(&mut next, &desired).await;
        assert_eq!(attached(&world, tcx), before, "turn {turn}");
        plane = next;
    }
    traffic.went_well();
    drop(plane);
}

#[tokio::test]
async fn programs_are_replaced_without_a_gap() {
    hands_over(true).await;
}

#[tokio::test]
async fn filters_are_replaced_without_a_gap() {
    hands_over(false).await;
}

/// Two that start at the same instant, where nothing is there yet: one may fail, and then finds what the other has made.
#[test]
fn two_at_once_attach_once() {
    let world = World::new();
    world.serve("pod", "local");
    let desired = service(&[(LOCAL_POD, true)]);
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let node = world.netns("node");
                let _inside = node.enter().unwrap();
                runtime.block_on(async {
                    let mut plane = world.plane(world.config());
                    barrier.wait();
                    for attempt in 0.. {
                        let done = async {
                            plane.observe().await?;
                            let plan = plane.plan(&desired, &seaway_model::Change::Full);
                            plane.apply(plan).await
                        };
                        match done.await {
                            Ok(_) => return,
                            Err(error) => assert!(attempt < 10, "{error}"),
                        }
                    }
                });
            });
        }
    });
    once_each(&attached(&world, true));
    let answer = world.client("out", false, &format!("tcp {NODE_IP}:30080"));
    assert!(answer.starts_with("local"), "{answer}");
}
