//! A build with this layout takes over from one with the layout before, in the middle of traffic.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use seaway_ebpf_abi::legacy::{OldFlowValue, OldSocketValue, VERSION};
use seaway_ebpf_abi::{
    AffinityKey, AffinityValue, FlowKey, FlowValue, LAYOUT_VERSION, SocketKey, SocketValue,
    SteadyValue, maps,
};
use seaway_proxy::ebpf::EbpfConfig;

use crate::lifecycle::connect;
use crate::world::{CLUSTER_IP, LOCAL_POD, NODE_IP, REMOTE_POD, World, ask, service, sync};

const KEY: usize = size_of::<FlowKey>();
const SOCKET: usize = size_of::<SocketKey>();

/// A map as the old layout has it: what it added comes last in each value, and is left away.
fn as_before<const K: usize, const V: usize, const O: usize>(from: &Path, to: &Path, name: &str) {
    let now = MapData::from_pin(from.join(name)).unwrap();
    let now: HashMap<_, [u8; K], [u8; V]> = Map::LruHashMap(now).try_into().unwrap();
    let path = to.join(name);
    let create = std::process::Command::new("bpftool")
        .args(["map", "create", path.to_str().unwrap(), "type", "lru_hash"])
        .args(["key", &K.to_string(), "value", &O.to_string()])
        .args(["entries", "4096", "name", name])
        .output()
        .unwrap();
    assert!(create.status.success(), "{create:?}");
    let old = MapData::from_pin(&path).unwrap();
    let mut old: HashMap<_, [u8; K], [u8; O]> = Map::LruHashMap(old).try_into().unwrap();
    for entry in now.iter() {
        let (key, value) = entry.unwrap();
        let value: [u8; O] = value[..O].try_into().unwrap();
        old.insert(key, value, 0).unwrap();
    }
}

/// Turns what is pinned into what the layout before has pinned. The programs at work stay as they are: with maps that are no longer
/// pinned, so that nothing of what they know comes to the next build but by the old layout.
fn turn_back(root: &Path) {
    let new = root.join(format!("v{LAYOUT_VERSION}"));
    let old = root.join(format!("v{VERSION}"));
    fs::create_dir_all(&old).unwrap();
    const FLOW: usize = size_of::<FlowValue>();
    as_before::<KEY, FLOW, { size_of::<OldFlowValue>() }>(&new, &old, maps::FLOWS);
    for name in [maps::SOCKETS_TCP, maps::SOCKETS_UDP] {
        const VALUE: usize = size_of::<SocketValue>();
        as_before::<SOCKET, VALUE, { size_of::<OldSocketValue>() }>(&new, &old, name);
    }
    const STEADY: usize = size_of::<SteadyValue>();
    as_before::<SOCKET, STEADY, STEADY>(&new, &old, maps::STEADY);
    const CLIENT: usize = size_of::<AffinityKey>();
    const KEPT: usize = size_of::<AffinityValue>();
    as_before::<CLIENT, KEPT, KEPT>(&new, &old, maps::AFFINITY);
    fs::rename(new.join("links"), old.join("links")).unwrap();
    for entry in fs::read_dir(&new).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&new).unwrap();
}

async fn goes_on(tcx: bool) {
    let world = World::new();
    world.serve("pod", "local");
    world.serve("peerpod", "remote");
    let desired = service(&[(LOCAL_POD, true), (REMOTE_POD, false)]);
    let config = EbpfConfig {
        tcx: Some(tcx),
        ..world.config()
    };
    let mut plane = world.plane(config.clone());
    sync(&mut plane, &desired).await;
    let out = world.netns("out");
    let address = format!("{NODE_IP}:30080");
    let mut streams: Vec<TcpStream> = (0..16).map(|_| connect(&out, &address)).collect();
    let asked = |streams: &mut Vec<TcpStream>| -> Vec<String> {
        let each = streams.iter_mut();
        each.map(|stream| ask(stream, "one").unwrap()).collect()
    };
    let before = asked(&mut streams);
    // A socket that was translated when it connected: its replies have to be shown as the frontend's.
    let mut follower = world.start_client("node", true, &format!("udp-follow {CLUSTER_IP}:80"));
    follower.wait_ready();

    drop(plane);
    turn_back(&world.bpffs);
    assert_eq!(asked(&mut streams), before, "the old programs go on");
    let mut plane = world.plane(config);
    sync(&mut plane, &desired).await;
    assert_eq!(asked(&mut streams), before, "so do ours, with its flows");
    follower.stop();
    let followed = follower.result();
    assert!(!followed.contains("error"), "{followed}");
    assert!(!world.bpffs.join(format!("v{VERSION}")).exists());
    let counters = plane.counters().unwrap();
    let of = |label: &str| counters.iter().find(|(v, _)| v.label() == label).unwrap().1;
    assert_eq!(of("new_flow"), 0, "no flow was begun anew");
    assert!(of("forward") > 0, "our programs are at work");
    // New ones are served, once each: not by both builds one after the other.
    for _ in 0..4 {
        let answer = world.client("out", false, &format!("tcp {address}"));
        assert!(!answer.contains("error"), "{answer}");
    }
}

#[tokio::test]
async fn flows_go_on_under_the_next_layout() {
    goes_on(true).await;
}

#[tokio::test]
async fn flows_go_on_under_the_next_layout_with_filters() {
    goes_on(false).await;
}
