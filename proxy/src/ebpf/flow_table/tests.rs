//! No packet goes the way of an entry that is gone: by the loaded programs, on every CPU, whoever took it away.

use std::fs;
use std::path::PathBuf;

use aya::programs::{TestRun as _, TestRunOptions};
use etherparse::PacketBuilder;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use seaway_ebpf_abi::flow::{
    FLOW_HELD, FLOW_STACK, STATE_ESTABLISHED, STATE_OPENED, STATE_REPLIED,
};
use seaway_ebpf_abi::{Addr, Hop, TCP, Verdict, programs};

use super::super::bpffs;
use super::super::config::MapSizes;
use super::super::objects::Programs;
use super::*;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVICE: [u8; 4] = [198, 51, 100, 1];
const BACKEND: [u8; 4] = [203, 0, 113, 1];
/// `TC_ACT_UNSPEC`, -1.
const PASS: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// Programs of our own, with a flow in their table.
struct Ground {
    dir: PathBuf,
    loaded: Programs,
    flows: FlowTable,
    cpus: Vec<usize>,
    before: CpuSet,
}

impl Ground {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(format!("/sys/fs/bpf/seaway-{name}-{}", std::process::id()));
        bpffs::create_dir(&dir).unwrap();
        let sizes = MapSizes {
            flows: 1024,
            ..MapSizes::default()
        };
        let loaded = Programs::load(&dir, sizes).unwrap();
        let flows = FlowTable::open(&dir).unwrap().unwrap();
        flows.new_epoch().unwrap();
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpus = (0..CpuSet::count())
            .filter(|cpu| before.is_set(*cpu).unwrap())
            .collect();
        Self {
            dir,
            loaded,
            flows,
            cpus,
            before,
        }
    }

    /// Sends a packet of the client, on a CPU; the verdict, and the destination that it has then.
    fn send(&mut self, cpu: usize, opens: bool) -> (u32, [u8; 4]) {
        let mut only = CpuSet::new();
        only.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &only).unwrap();
        let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(CLIENT, SERVICE, 64)
            .tcp(4000, 80, 1, 1024);
        let tcp = if opens { tcp.syn() } else { tcp.ack(1) };
        let mut packet = Vec::new();
        tcp.write(&mut packet, &[]).unwrap();
        let mut out = vec![0; 256];
        let ran = self
            .loaded
            .classifier(programs::FROM_UPLINK)
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(&packet),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            })
            .unwrap();
        (ran.return_value, out[30..34].try_into().unwrap())
    }

    fn entry(&self) -> (FlowKey, FlowValue) {
        let addr = |bytes| Addr::v4(u32::from_ne_bytes(bytes));
        let key = FlowKey {
            src: addr(CLIENT),
            dst: addr(SERVICE),
            sport: 4000_u16.to_be(),
            dport: 80_u16.to_be(),
            protocol: TCP,
            pad: [0; 3],
        };
        let value = FlowValue {
            // The programs' clock is behind ours by a tick.
            last_seen: sys::monotonic_ns() - 20_000_000,
            src: key.src,
            dst: addr(BACKEND),
            sport: key.sport,
            dport: 8080_u16.to_be(),
            state: STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED,
            hop: Hop {
                epoch: self.flows.epoch.get(&0).unwrap().unwrap(),
                ifindex: 1,
                to: [1; 3],
                from: [2; 3],
                mtu: 1500,
                pad: 0,
            },
            ..FlowValue::default()
        };
        (key, value)
    }

    /// Has a flow whose packets take the short way on every CPU.
    fn settle(&mut self) -> FlowKey {
        for _ in 0..100 {
            let (key, value) = self.entry();
            self.flows.set(&key, &value).unwrap();
            // Writing it has begun an epoch.
            let (_, value) = self.entry();
            self.flows.table.set(&key, &value).unwrap();
            let cpus = self.cpus.clone();
            // On a busy machine a second may go by meanwhile; then they take the long way, which leads nowhere here.
            if cpus
                .iter()
                .all(|cpu| (0..2).all(|_| self.send(*cpu, false) == (REDIRECT, BACKEND)))
            {
                return key;
            }
        }
        panic!("no packet takes the short way");
    }

    /// What every CPU does with a packet in the midst of the connection.
    fn everywhere(&mut self, expected: (u32, [u8; 4])) {
        for cpu in self.cpus.clone() {
            assert_eq!(self.send(cpu, false), expected, "CPU {cpu}");
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn what_user_space_takes_away_is_gone_on_every_cpu() {
    let mut ground = Ground::new("gone");
    let key = ground.settle();
    assert_eq!(ground.flows.delete_all(&[key]).unwrap(), 1);
    ground.everywhere((PASS, SERVICE));

    for (flag, code) in [(FLOW_HELD, SHOT), (FLOW_STACK, PASS)] {
        let key = ground.settle();
        let (_, value) = ground.entry();
        let given_away = FlowValue {
            flags: flag,
            ..value
        };
        ground.flows.set(&key, &given_away).unwrap();
        ground.everywhere((code, SERVICE));
    }
}

/// The packet that begins anew is seen by one CPU only.
#[test]
fn what_a_program_takes_away_is_gone_on_every_cpu() {
    let mut ground = Ground::new("anew");
    for place in 0..ground.cpus.len() {
        let key = ground.settle();
        let closed = FlowValue {
            state: u8::MAX,
            ..ground.entry().1
        };
        // As programs write a state: nobody is told.
        ground.flows.table.set(&key, &closed).unwrap();
        let cpu = ground.cpus[place];
        // There is no Service any more.
        assert_eq!(ground.send(cpu, true), (PASS, SERVICE));
        assert!(ground.flows.get(&key).unwrap().is_none());
        ground.everywhere((PASS, SERVICE));
    }
}

/// That the tests above could fail: slots are followed without a look into the table.
#[test]
fn a_slot_is_followed_until_somebody_ends_it() {
    let mut ground = Ground::new("slot");
    let followed = (0..100).any(|_| {
        let key = ground.settle();
        // Past those who have to know.
        ground.flows.table.delete(&key).unwrap();
        let cpu = *ground.cpus.last().unwrap();
        ground.send(cpu, false) == (REDIRECT, BACKEND)
    });
    assert!(followed, "no slot was used at all");
}

/// It takes no help from anybody for a slot to end.
#[test]
fn a_slot_ends_by_itself() {
    let mut ground = Ground::new("ends");
    let key = ground.settle();
    ground.flows.table.delete(&key).unwrap();
    let deleted = std::time::Instant::now();
    let cpu = ground.cpus[0];
    loop {
        let started = std::time::Instant::now();
        if ground.send(cpu, false) == (PASS, SERVICE) {
            break;
        }
        let limit = std::time::Duration::from_millis(1100);
        assert!(started - deleted < limit, "a slot outlives its second");
    }
}

#[test]
fn what_comes_and_goes_is_counted() {
    let ground = Ground::new("counted");
    let count = |verdict| {
        let counters = super::super::observe::counters(&ground.dir).unwrap();
        counters.iter().find(|(v, _)| *v == verdict).unwrap().1
    };
    let (key, value) = ground.entry();
    for _ in 0..2 {
        ground.flows.set(&key, &value).unwrap();
    }
    let other = FlowKey { dport: 1, ..key };
    ground.flows.bring_in(vec![(other, value)]).unwrap();
    assert_eq!(count(Verdict::EntryAdopted), 2);
    assert_eq!(ground.flows.delete_all(&[key, other, key]).unwrap(), 2);
    assert_eq!(count(Verdict::EntryCollected), 2);
}
