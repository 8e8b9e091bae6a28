//! The specification by example ([`seaway_model::testing::scenes`]) with real rules or programs and real packets: each scene on a
//! node in a namespace of its own, in both families, with both variants of iptables and with nat in the one and filter in
//! the other.

#![allow(clippy::unwrap_used)]

mod ebpf;
mod stage;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use seaway_kernel::Capabilities;
use seaway_kernel::capabilities::{IptablesProgram, IptablesVariant};
use seaway_model::testing::classes::Way;
use seaway_model::testing::scenes::{Case, Scene, scenes};
use seaway_model::{
    Change, Desired, Family, Origin, Outcome, Outcomes, Packet, Protocol, derive_all, outcomes,
};
use seaway_proxy::companion::Share;
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::{IptablesConfig, IptablesDataplane, NatVariant};

use ebpf::Programmed;
use stage::Stage;
use wire::Evidence;

/// Packets of one case that are sent at once.
const ROUND: u16 = 16;
/// Rounds until chance is no excuse: with four endpoints one is missed once in 10^16 times.
const ROUNDS: u16 = 8;

/// What can be seen from outside of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Left the node for this address, with another source than it came with or not.
    Left {
        to: SocketAddr,
        masqueraded: bool,
    },
    /// A reset, or "port unreachable".
    Refused,
    Nothing,
}

/// What programs the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What the node's own `iptables` is, and where our nat rules are to be.
    Iptables(IptablesVariant, NatVariant),
    Ebpf,
}

#[test]
fn scenes_of_ipv4_with_iptables_nft() {
    play(Family::V4, NFT);
}

#[test]
fn scenes_of_ipv4_with_iptables_legacy() {
    play(Family::V4, LEGACY);
}

#[test]
fn scenes_of_ipv4_with_nat_by_nft_on_a_legacy_node() {
    play(Family::V4, SPLIT);
}

#[test]
fn scenes_of_ipv6_with_iptables_nft() {
    play(Family::V6, NFT);
}

#[test]
fn scenes_of_ipv6_with_iptables_legacy() {
    play(Family::V6, LEGACY);
}

#[test]
fn scenes_of_ipv6_with_nat_by_nft_on_a_legacy_node() {
    play(Family::V6, SPLIT);
}

#[test]
fn scenes_of_ipv4_with_ebpf() {
    play(Family::V4, Mode::Ebpf);
}

#[test]
fn scenes_of_ipv6_with_ebpf() {
    play(Family::V6, Mode::Ebpf);
}

/// Not a test: what the others start as a process of the node.
#[test]
fn node_process() {
    ebpf::node_process();
}

const NFT: Mode = Mode::Iptables(IptablesVariant::NfTables, NatVariant::Auto);
const LEGACY: Mode = Mode::Iptables(IptablesVariant::Legacy, NatVariant::Same);
const SPLIT: Mode = Mode::Iptables(IptablesVariant::Legacy, NatVariant::Nft);

fn play(family: Family, mode: Mode) {
    let mut played = 0;
    let mut failures = Vec::new();
    let mut perform = |scene: &Scene, props: &Props<'_>, ports: &mut Range<u16>| {
        let cases = scene.cases.iter();
        for case in cases.filter(|case| concerns(scene, case, mode)) {
            let ways = Way::of(&case.packet).iter();
            for way in ways.filter(|_| can_be_sent(case, scene, props.desired, mode)) {
                played += 1;
                let send =
                    |sent: &[u16], vanishes| props.send((&case.packet, *way), sent, vanishes);
                let seen = observe(send, scene, props.desired, case, ports);
                if let Some(difference) = difference(scene, props.desired, case, &seen) {
                    let (name, line) = (&scene.name, case.line);
                    failures.push(format!("{name}: {line} by {way}: {difference}"));
                }
            }
        }
    };
    let mut scenes = scenes();
    scenes.retain(|scene| scene.family == family);
    match mode {
        Mode::Iptables(variant, nat_variant) => {
            for scene in &scenes {
                let stage = Stage::new(&scene.node);
                let (desired, _) = derive_all(&scene.inputs, &scene.settings);
                stage.on_node(|| program(scene, &desired, variant, nat_variant));
                perform(
                    scene,
                    &Props::new(&stage, &desired, None),
                    &mut (20_000..30_000),
                );
            }
        }
        // It takes long to load programs: scenes of the same node follow each other on it.
        Mode::Ebpf => {
            while let Some(first) = scenes.first() {
                let node = first.node.clone();
                let stage = Stage::new(&node);
                let mut ebpf = Programmed::new(&node, stage.node());
                let mut ports = 20_000..60_000;
                let mut beside = Desired::default();
                for scene in scenes.extract_if(.., |scene| scene.node == node) {
                    let (desired, _) = derive_all(&scene.inputs, &scene.settings);
                    ebpf.program(&desired);
                    let share = Share::of(&desired);
                    if share != beside {
                        let (variant, nat) = (IptablesVariant::NfTables, NatVariant::Auto);
                        stage.on_node(|| program(&scene, &share, variant, nat));
                        beside = share;
                    }
                    let props = Props::new(&stage, &desired, Some(&ebpf));
                    perform(&scene, &props, &mut ports);
                }
            }
        }
    }
    println!("{family:?} {mode:?}: {played} played");
    assert!(
        failures.is_empty(),
        "{} of {played}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(played > 100, "only {played} cases");
}

/// What a scene is played with.
struct Props<'a> {
    stage: &'a Stage,
    desired: &'a Desired,
    ebpf: Option<&'a Programmed>,
}

impl<'a> Props<'a> {
    fn new(stage: &'a Stage, desired: &'a Desired, ebpf: Option<&'a Programmed>) -> Self {
        Self {
            stage,
            desired,
            ebpf,
        }
    }

    fn send(&self, (packet, way): (&Packet, Way), sent: &[u16], may_vanish: bool) -> ByPort {
        let Some(ebpf) = self.ebpf.filter(|_| way == Way::Socket) else {
            return self.stage.send((packet, way), sent, may_vanish);
        };
        let mut heard = ebpf.send(packet, sent);
        let mut rest = sent.to_vec();
        rest.retain(|port| !heard.contains_key(port));
        heard.extend(self.stage.hear(packet, &rest, may_vanish));
        heard
    }
}

/// SCTP is served by rules in both modes, and only by a kernel that tracks it. In eBPF mode the programs refuse what the rules beside
/// them do not know.
fn can_be_sent(case: &Case, scene: &Scene, desired: &Desired, mode: Mode) -> bool {
    let packet = &case.packet;
    let is_for_programs = || {
        let beside = outcomes(&Share::of(desired), packet, &scene.node);
        mode == Mode::Ebpf && beside == Outcomes::from([Outcome::Pass])
    };
    packet.protocol != Protocol::Sctp || tracks_sctp() || is_for_programs()
}

fn tracks_sctp() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established").exists()
}

/// Each mode has scenes of its own about loopback addresses, which are served to sockets and to nobody else.
fn concerns(scene: &Scene, case: &Case, mode: Mode) -> bool {
    let to_loopback = case.packet.destination.ip().is_loopback();
    !to_loopback || scene.node.loopback_node_ports == (mode == Mode::Ebpf)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn program(scene: &Scene, desired: &Desired, variant: IptablesVariant, nat_variant: NatVariant) {
    let program = IptablesProgram {
        version: "1.8.9".into(),
        variant,
    };
    let machine = Capabilities {
        kernel: (6, 1),
        iptables: Some(program.clone()),
        ip6tables: Some(program),
        ..Capabilities::default()
    };
    let config = IptablesConfig {
        detect_local: scene.node.detect_local.clone(),
        node_port_addresses: scene.node.node_port_addresses.clone(),
        masquerade_all: scene.node.masquerade_all,
        nat_variant,
        ..IptablesConfig::default()
    };
    runtime().block_on(async {
        let mut dataplane = IptablesDataplane::new(&config, &machine);
        dataplane.observe().await.unwrap();
        dataplane.rehearse().await.unwrap();
        let plan = dataplane.plan(desired, &Change::Full);
        dataplane.apply(plan).await.unwrap();
    });
}

/// Sends the packet of a case, each time from another port, until everything expected was seen.
fn observe(
    send: impl Fn(&[u16], bool) -> ByPort,
    scene: &Scene,
    desired: &Desired,
    case: &Case,
    ports: &mut impl Iterator<Item = u16>,
) -> BTreeSet<Seen> {
    let expected = expected(scene, case);
    let may_vanish = expected.contains(&Seen::Nothing);
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let sent: Vec<u16> = ports.by_ref().take(usize::from(ROUND)).collect();
        let mut evidence = send(&sent, may_vanish);
        seen.extend(sent.iter().map(|port| verdict(case, evidence.remove(port))));
        let missing = expected
            .iter()
            .any(|one| !seen.iter().any(|seen| fits(&case.packet, *one, *seen)));
        if !missing || has_affinity(desired, scene, case) {
            break;
        }
    }
    seen
}

fn verdict(case: &Case, evidence: Option<Evidence>) -> Seen {
    match evidence {
        None => Seen::Nothing,
        Some(Evidence::Refused) => Seen::Refused,
        Some(Evidence::Left { from, to }) => Seen::Left {
            to,
            masqueraded: from != case.packet.source,
        },
    }
}

/// The allowed outcomes as they look from outside.
fn expected(scene: &Scene, case: &Case) -> BTreeSet<Seen> {
    let to = case.packet.destination;
    let as_seen = |outcome: &Outcome| match *outcome {
        Outcome::Deliver {
            backend,
            masqueraded,
        } => Seen::Left {
            to: backend,
            masqueraded,
        },
        Outcome::Reject => Seen::Refused,
        Outcome::Drop => Seen::Nothing,
        // Nobody listens on the node.
        Outcome::Pass if scene.node.is_node(to.ip()) || to.ip().is_loopback() => Seen::Refused,
        Outcome::Pass => Seen::Left {
            to,
            masqueraded: false,
        },
    };
    case.expected.iter().map(as_seen).collect()
}

/// A process of the node has an address of the node in any case.
fn fits(packet: &Packet, expected: Seen, seen: Seen) -> bool {
    match (expected, seen) {
        (Seen::Left { to, .. }, Seen::Left { to: found, .. })
            if packet.origin == Origin::NodeProcess =>
        {
            to == found
        }
        _ => expected == seen,
    }
}

fn has_affinity(desired: &Desired, scene: &Scene, case: &Case) -> bool {
    let to = case.packet.destination;
    let local = scene.node.serves_node_ports(to.ip());
    desired
        .find(to.ip(), to.port(), case.packet.protocol, local)
        .is_some_and(|(_, rule, _)| rule.affinity.is_some())
}

fn difference(
    scene: &Scene,
    desired: &Desired,
    case: &Case,
    seen: &BTreeSet<Seen>,
) -> Option<String> {
    let expected = expected(scene, case);
    let allowed = |seen: &Seen| expected.iter().any(|one| fits(&case.packet, *one, *seen));
    let was_seen = |one: &Seen| seen.iter().any(|seen| fits(&case.packet, *one, *seen));
    let strange: Vec<_> = seen.iter().filter(|seen| !allowed(seen)).collect();
    let missing: Vec<_> = match has_affinity(desired, scene, case) {
        // The client stays with the first.
        true => Vec::new(),
        false => expected.iter().filter(|one| !was_seen(one)).collect(),
    };
    (!strange.is_empty() || !missing.is_empty())
        .then(|| format!("not allowed: {strange:?}, never seen: {missing:?}"))
}

/// Evidence by the source port of the packet that it is about.
type ByPort = BTreeMap<u16, Evidence>;
