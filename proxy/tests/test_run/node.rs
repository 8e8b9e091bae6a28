//! A node in a namespace of its own with a pod link, an uplink and an overlay, and the programs loaded beside a data plane
//! that keeps their maps.

use std::fs;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use ipnetwork::IpNetwork;
use seaway_ebpf_abi::{AffinityKey, AffinityValue, FlowKey, FlowValue, LAYOUT_VERSION, maps};
use seaway_kernel::{Encap, MacAddr, NetNs, Netlink, Route, Scope, VethOptions, cgroup, sysctl};
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};
use seaway_model::testing::classes::Way;
use seaway_model::testing::scenes::names;
use seaway_model::{Change, Desired, NodeContext};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::ebpf::{EbpfConfig, EbpfDataplane, Programs};
use tokio::runtime::Runtime;

/// Of pods; by the name, links of ours are known in every setting.
const POD_LINK: &str = "sw000000000ab";
const PARENT: &str = "/sys/fs/bpf/seaway-test-run";

/// Through which link a packet meets the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entry {
    Pod,
    Uplink,
    Overlay,
    /// On the way out of these.
    OutToPod,
    OutOfUplink,
    OutOfOverlay,
}

impl Entry {
    /// Where packets that come this way meet the classifiers.
    pub(crate) fn of(way: Way) -> Option<Self> {
        match way {
            Way::Socket => None,
            Way::Pod => Some(Self::Pod),
            Way::Uplink => Some(Self::Uplink),
            Way::Overlay => Some(Self::Overlay),
        }
    }

    /// The way of what comes in here; `None` where packets leave.
    pub(crate) fn way(self) -> Option<Way> {
        match self {
            Self::Pod => Some(Way::Pod),
            Self::Uplink => Some(Way::Uplink),
            Self::Overlay => Some(Way::Overlay),
            Self::OutToPod | Self::OutOfUplink | Self::OutOfOverlay => None,
        }
    }

    /// Where the node's own answers to what came in here leave.
    pub(crate) fn way_out(self) -> Self {
        match self {
            Self::Pod | Self::OutToPod => Self::OutToPod,
            Self::Uplink | Self::OutOfUplink => Self::OutOfUplink,
            Self::Overlay | Self::OutOfOverlay => Self::OutOfOverlay,
        }
    }

    pub(crate) fn is_way_out(self) -> bool {
        self == self.way_out()
    }
}

/// What a program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Drop,
    Redirect,
}

/// Gone when dropped; its namespaces have no name, so that nothing is left of them.
pub(crate) struct Node {
    config: EbpfConfig,
    pub(crate) context: NodeContext,
    netns: NetNs,
    /// The other ends of the links.
    _elsewhere: NetNs,
    links: Links,
    plane: EbpfDataplane,
    programs: Programs,
    tables: Tables,
    runtime: Runtime,
}

struct Links {
    pod: u32,
    uplink: u32,
    overlay: u32,
}

/// What the programs remember.
struct Tables {
    flows: HashMap<MapData, [u8; KEY], [u8; VALUE]>,
    affinity: HashMap<MapData, [u8; size_of::<AffinityKey>()], [u8; size_of::<AffinityValue>()]>,
}

const KEY: usize = size_of::<FlowKey>();
const VALUE: usize = size_of::<FlowValue>();

/// An entry of the flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where its packets come from and go to after translation.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// `STATE_*` bits.
    pub(crate) state: u8,
    /// `FLOW_*` bits.
    pub(crate) flags: u8,
}

impl Node {
    /// A node as `context` says, with addresses on its overlay besides, and no Service.
    pub(crate) fn new(context: &NodeContext) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("swtestrun{}-{number}", std::process::id());
        let mut context = context.clone();
        for address in overlay_addresses() {
            if !context.is_node(address) {
                context.addresses.push(address);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let [netns, elsewhere] = [(); 2].map(|()| NetNs::anonymous().unwrap());
        let links = runtime.block_on(wire(&netns, &elsewhere, &context));
        let root = cgroup::mount_point().unwrap().join(&id);
        cgroup::create(&root).unwrap();
        let config = EbpfConfig {
            bpffs_root: PathBuf::from(PARENT).join(&id),
            ..EbpfConfig::new("n1", root)
        };
        let plane = plane(&runtime, &netns, &config, &context);
        let pins = config.bpffs_root.join(format!("v{LAYOUT_VERSION}"));
        Self {
            programs: Programs::load(&pins, config.sizes).unwrap(),
            tables: Tables {
                flows: table(&pins, maps::FLOWS),
                affinity: table(&pins, maps::AFFINITY),
            },
            config,
            context,
            netns,
            _elsewhere: elsewhere,
            links,
            plane,
            runtime,
        }
    }

    /// Puts another data plane in the place of the one that is there, with these settings. The addresses stay.
    pub(crate) fn become_as(&mut self, context: &NodeContext) {
        let addresses = std::mem::take(&mut self.context.addresses);
        self.context = NodeContext {
            addresses,
            ..context.clone()
        };
        self.plane = plane(&self.runtime, &self.netns, &self.config, &self.context);
    }

    /// Programs other Services; flows and clients stay remembered.
    pub(crate) fn program(&mut self, desired: &Desired) {
        self.runtime.block_on(apply(&mut self.plane, desired));
    }

    /// Nobody has ever sent anything.
    pub(crate) fn forget(&mut self) {
        let flows: Vec<_> = self.tables.flows.keys().map(Result::unwrap).collect();
        for key in flows {
            self.tables.flows.remove(&key).unwrap();
        }
        let clients: Vec<_> = self.tables.affinity.keys().map(Result::unwrap).collect();
        for key in clients {
            self.tables.affinity.remove(&key).unwrap();
        }
    }

    /// Runs a program over a frame. The calling thread is in the node's namespace for as long as that takes.
    pub(crate) fn run(&mut self, entry: Entry, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let (program, link) = match entry {
            Entry::Pod => ("from_pod", self.links.pod),
            Entry::Uplink => ("from_uplink", self.links.uplink),
            Entry::Overlay => ("from_uplink", self.links.overlay),
            Entry::OutToPod => ("to_link", self.links.pod),
            Entry::OutOfUplink => ("to_link", self.links.uplink),
            Entry::OutOfOverlay => ("to_link", self.links.overlay),
        };
        let mut output = vec![0; frame.len() + 256];
        // struct __sk_buff: ifindex is the eleventh word.
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&link.to_ne_bytes());
        let _inside = self.netns.enter().unwrap();
        let result = self
            .programs
            .classifier(program)
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut output),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap();
        output.truncate(result.data_size_out as usize);
        let verdict = match result.return_value {
            u32::MAX => Verdict::Pass,
            2 => Verdict::Drop,
            7 => Verdict::Redirect,
            other => panic!("{program} answers {other}"),
        };
        (verdict, output)
    }

    /// The entry of a packet in the flow table.
    pub(crate) fn flow(&self, from: SocketAddr, to: SocketAddr, tcp: bool) -> Option<Flow> {
        let mut key = [0; KEY];
        put(&mut key, offset_of!(FlowKey, src), &octets(from.ip()));
        put(&mut key, offset_of!(FlowKey, dst), &octets(to.ip()));
        put(
            &mut key,
            offset_of!(FlowKey, sport),
            &from.port().to_be_bytes(),
        );
        put(
            &mut key,
            offset_of!(FlowKey, dport),
            &to.port().to_be_bytes(),
        );
        key[offset_of!(FlowKey, protocol)] = if tcp { 6 } else { 17 };
        let value = self.tables.flows.get(&key, 0).ok()?;
        let end = |addr: usize, port: usize| {
            let octets: [u8; 16] = take(&value, addr);
            let ip = IpAddr::from(octets).to_canonical();
            SocketAddr::new(ip, u16::from_be_bytes(take(&value, port)))
        };
        Some(Flow {
            from: end(offset_of!(FlowValue, src), offset_of!(FlowValue, sport)),
            to: end(offset_of!(FlowValue, dst), offset_of!(FlowValue, dport)),
            state: value[offset_of!(FlowValue, state)],
            flags: value[offset_of!(FlowValue, flags)],
        })
    }

    /// The link by which an address sends.
    pub(crate) fn entry_of(&self, ip: IpAddr) -> Entry {
        let here = names::node_cidrs().iter().any(|cidr| cidr.contains(ip));
        let pod = names::cluster_cidrs().iter().any(|cidr| cidr.contains(ip));
        match (here, pod) {
            (true, _) => Entry::Pod,
            (false, true) => Entry::Overlay,
            (false, false) => Entry::Uplink,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.plane.cleanup());
        let _ = fs::remove_dir(&self.config.bpffs_root);
        let _ = fs::remove_dir(PARENT);
        let root = &self.config.cgroup_root;
        let _ = cgroup::wait_empty(root, Duration::from_secs(2));
        let _ = cgroup::delete(root);
    }
}

/// A data plane that is in force, without Services.
fn plane(
    runtime: &Runtime,
    netns: &NetNs,
    config: &EbpfConfig,
    context: &NodeContext,
) -> EbpfDataplane {
    let config = EbpfConfig {
        detect_local: context.detect_local.clone(),
        node_port_addresses: context.node_port_addresses.clone(),
        masquerade_all: context.masquerade_all,
        ..config.clone()
    };
    let mut plane = {
        let _inside = netns.enter().unwrap();
        EbpfDataplane::new(config).unwrap()
    };
    runtime.block_on(async {
        plane.observe().await.unwrap();
        apply(&mut plane, &Desired::default()).await;
    });
    plane
}

async fn apply(plane: &mut EbpfDataplane, desired: &Desired) {
    let plan = plane.plan(desired, &Change::Full);
    plane.apply(plan).await.unwrap();
}

fn table<const K: usize, const V: usize>(
    pins: &Path,
    name: &str,
) -> HashMap<MapData, [u8; K], [u8; V]> {
    let data = MapData::from_pin(pins.join(name)).unwrap();
    Map::LruHashMap(data).try_into().unwrap()
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().unwrap()
}

/// As the maps hold addresses of both families.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The base addresses of the node's pod networks.
pub(crate) fn overlay_addresses() -> Vec<IpAddr> {
    names::node_cidrs().iter().map(IpNetwork::network).collect()
}

async fn wire(netns: &NetNs, elsewhere: &NetNs, context: &NodeContext) -> Links {
    let forwarding = || {
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv6.conf.default.accept_dad", "0"),
        ] {
            sysctl::write(key, value).unwrap();
        }
    };
    netns.run(forwarding).unwrap();
    let here = Netlink::in_namespace(netns).unwrap();
    let there = Netlink::in_namespace(elsewhere).unwrap();
    for name in [POD_LINK, "eth0"] {
        let options = VethOptions {
            peer_netns: Some(elsewhere),
            up: true,
            ..VethOptions::default()
        };
        here.add_veth(name, name, options).await.unwrap();
        let end = there.link(name).await.unwrap().unwrap().index;
        there.set_up(end).await.unwrap();
    }
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    here.add_vxlan_external(VXLAN_LINK, 8472, mac, 1450)
        .await
        .unwrap();
    let mut links = [0; 3];
    for (index, name) in links.iter_mut().zip([POD_LINK, "eth0", VXLAN_LINK]) {
        *index = here.link(name).await.unwrap().unwrap().index;
    }
    let [pod, uplink, overlay] = links;
    here.set_up(overlay).await.unwrap();
    for address in &context.addresses {
        let link = if overlay_addresses().contains(address) {
            overlay
        } else {
            uplink
        };
        here.add_address(link, IpNetwork::from(*address), Scope::Global)
            .await
            .unwrap();
    }
    let mut routes = Vec::new();
    for network in names::node_cidrs() {
        routes.push((network, pod, None));
    }
    for network in names::cluster_cidrs() {
        let encap = Encap::new(1, [192, 168, 100, 2].into());
        routes.push((network, overlay, Some(encap)));
    }
    for text in ["0.0.0.0/0", "::/0"] {
        routes.push((text.parse().unwrap(), uplink, None));
    }
    for (network, link, encap) in routes {
        let gateway = if network.is_ipv4() {
            [169, 254, 7, 7].into()
        } else {
            [0xfe80, 0, 0, 0, 0, 0, 7, 7].into()
        };
        here.replace_neighbour(link, gateway, mac).await.unwrap();
        let route = Route {
            gateway: Some(gateway),
            link: Some(link),
            onlink: true,
            encap,
            ..Route::new(network, ROUTE_PROTOCOL)
        };
        here.add_route(&route).await.unwrap();
    }
    Links {
        pod,
        uplink,
        overlay,
    }
}
