//! A small mesh for tests: nodes `n1` and on in one subnet, one uplink.

#![allow(clippy::unwrap_used)]

use seaway_kernel::{Link, LinkKind};

use seaway_model::Node;

use crate::mesh::{Member, Roster};
use crate::plan::{
    ChecksumOffload, Desired, Findings, Manner, ReceiveOffload, Settings, Underlay, Uplink,
};

pub(crate) fn member(number: u8) -> Member {
    Member {
        name: format!("n{number}").into(),
        address: format!("192.168.0.{number}").parse().unwrap(),
        second: None,
        pod_cidrs: vec![
            format!("10.244.{number}.0/24").parse().unwrap(),
            format!("fd01:{number}::/64").parse().unwrap(),
        ],
    }
}

/// The Node of a member.
pub(crate) fn node(member: &Member) -> Node {
    Node {
        name: member.name.clone(),
        addresses: member.addresses().collect(),
        pod_cidrs: member.pod_cidrs.clone(),
        zone: None,
        draining: false,
        direct_answers: seaway_model::DirectAnswers::No,
    }
}

pub(crate) fn roster(own: &Member, peers: &[Member]) -> Roster {
    let nodes = peers.iter().map(|peer| (peer.name.clone(), node(peer)));
    Roster::new(own.clone(), &nodes.collect())
}

pub(crate) fn plan(
    own: &Member,
    peers: &[Member],
    settings: &Settings,
    underlay: &Underlay,
    findings: &Findings,
) -> Desired {
    let manner = Manner {
        settings,
        underlay,
        findings,
    };
    manner.plan(&roster(own, peers))
}

pub(crate) fn settings() -> Settings {
    Settings {
        cluster_cidrs: Vec::new(),
        masquerade_exclusions: Vec::new(),
        forward_rules: true,
        vni: 1,
        port: 8472,
        direct_routing: false,
        checksum_offload: ChecksumOffload::Auto,
        receive_offload: ReceiveOffload::Auto,
    }
}

pub(crate) fn underlay() -> Underlay {
    Underlay {
        v4: Some(Uplink {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            merged: true,
            network: "192.168.0.1/24".parse().unwrap(),
        }),
        v6: None,
    }
}

pub(crate) fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.into(),
        kind: LinkKind::Device,
        mtu,
        mac: None,
        up: true,
        running: true,
        master: None,
        peer: None,
        framing: seaway_kernel::Framing::Ethernet,
        peer_netns: None,
    }
}
