//! A node between its pods, the pods of other nodes and the world, all in namespaces without a name: nothing to clean up.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    setsockopt, socket, sockopt,
};
use seaway_kernel::{MacAddr, NetNs, Netlink, Route, Scope, VethOptions, sysctl};
use seaway_model::ownership::{ROUTE_PROTOCOL, VXLAN_LINK};
use seaway_model::testing::classes::Way;
use seaway_model::testing::scenes::names;
use seaway_model::{DetectLocal, NodeContext, Origin, Packet};

use crate::{ByPort, wire};

/// How long nothing has to be heard of a packet to say that nothing became of it: where that is expected, and where it
/// would be a failure that a busy machine is not to cause.
const SILENCE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    node: Place,
    pods: Place,
    /// Behind a link with the name of the overlay's device.
    peers: Place,
    world: Place,
}

/// A namespace, and sockets in it that were opened once.
struct Place {
    netns: NetNs,
    /// Sees every packet.
    ear: OwnedFd,
    /// Sends packets as they are.
    mouth4: OwnedFd,
    mouth6: OwnedFd,
}

impl Stage {
    /// The node of a scene.
    pub(crate) fn new(context: &NodeContext) -> Self {
        let pod_link = match &context.detect_local {
            DetectLocal::BridgeInterface(name) => name,
            _ => "sw000000000ab",
        };
        let [node, pods, peers, world] = [true, false, false, false].map(Place::new);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let uplink = connect(&node.netns, "eth0", &world.netns).await;
            let pod_link = connect(&node.netns, pod_link, &pods.netns).await;
            let overlay = connect(&node.netns, VXLAN_LINK, &peers.netns).await;
            let netlink = Netlink::in_namespace(&node.netns).unwrap();
            for address in &context.addresses {
                netlink
                    .add_address(uplink, IpNetwork::from(*address), Scope::Global)
                    .await
                    .unwrap();
            }
            node.netns.await_ready().unwrap();
            for network in names::node_cidrs() {
                route(&netlink, pod_link, network).await;
            }
            for network in names::cluster_cidrs() {
                route(&netlink, overlay, network).await;
            }
            for network in everything() {
                route(&netlink, uplink, network).await;
            }
        });
        Self {
            node,
            pods,
            peers,
            world,
        }
    }

    /// Runs something on the node.
    pub(crate) fn on_node<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.node.netns.run(f).unwrap()
    }

    /// The node's namespace.
    pub(crate) fn node(&self) -> &NetNs {
        &self.node.netns
    }

    /// Sends a packet once from each source port, and hears what became of it. `may_vanish`: nothing is an answer.
    pub(crate) fn send(
        &self,
        (packet, way): (&Packet, Way),
        ports: &[u16],
        may_vanish: bool,
    ) -> ByPort {
        self.shout(packet, way, ports);
        self.hear(packet, ports, may_vanish)
    }

    fn shout(&self, packet: &Packet, way: Way, ports: &[u16]) {
        let from = match way {
            Way::Socket => &self.node,
            Way::Pod => &self.pods,
            Way::Overlay => &self.peers,
            Way::Uplink => &self.world,
        };
        let mouth = if packet.source.is_ipv4() {
            &from.mouth4
        } else {
            &from.mouth6
        };
        // The port of a raw socket's address means nothing.
        let to = SockaddrStorage::from(std::net::SocketAddr::new(packet.destination.ip(), 0));
        for port in ports {
            let bytes = wire::write(packet, *port);
            match sendto(mouth.as_raw_fd(), &bytes, &to, MsgFlags::empty()) {
                // So the kernel tells the node's own processes that a rule has dropped or refused a packet.
                Ok(_) | Err(Errno::EPERM) => {}
                Err(error) => panic!("{packet:?}: {error}"),
            }
        }
    }

    /// Hears what becomes of packets that were sent just now.
    pub(crate) fn hear(&self, packet: &Packet, ports: &[u16], may_vanish: bool) -> ByPort {
        let limit = if may_vanish { SILENCE } else { PATIENCE };
        let mut heard = ByPort::new();
        let sent = Instant::now();
        loop {
            let forwarded = packet.origin != Origin::NodeProcess;
            for place in [&self.world, &self.peers, &self.pods] {
                place.listen(|bytes| heard.extend(wire::read(bytes, forwarded)));
            }
            // The node itself hears what it is refused, and otherwise only what passes.
            let mut refused = ByPort::new();
            self.node
                .listen(|bytes| refused.extend(wire::read(bytes, true)));
            refused.retain(|_, evidence| *evidence == wire::Evidence::Refused);
            if packet.origin == Origin::NodeProcess {
                heard.extend(refused);
            }
            let all = ports.iter().all(|port| heard.contains_key(port));
            if all || sent.elapsed() > limit {
                return heard;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Place {
    fn new(forwards: bool) -> Self {
        let forwarding = if forwards { "1" } else { "0" };
        let netns = NetNs::anonymous().unwrap();
        let sockets = || {
            for (key, value) in [
                ("net.ipv4.ip_forward", forwarding),
                ("net.ipv6.conf.all.forwarding", forwarding),
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "0"),
                ("net.ipv4.icmp_ratelimit", "0"),
                ("net.ipv6.icmp.ratelimit", "0"),
                // Nor is there a limit for all of them: the only kind that is limited is one that nobody sends.
                ("net.ipv4.icmp_ratemask", "2"),
                ("net.ipv6.icmp.ratemask", "0"),
                ("net.ipv6.conf.default.accept_dad", "0"),
                ("net.ipv4.conf.default.send_redirects", "0"),
                ("net.ipv4.conf.all.send_redirects", "0"),
            ] {
                sysctl::write(key, value).unwrap();
            }
            let open = |family, kind, protocol| {
                socket(family, kind, SockFlag::SOCK_NONBLOCK, Some(protocol)).unwrap()
            };
            let ear = open(
                AddressFamily::Packet,
                SockType::Datagram,
                SockProtocol::EthAll,
            );
            setsockopt(&ear, sockopt::RcvBufForce, &(8 << 20)).unwrap();
            let mouth = |family| open(family, SockType::Raw, SockProtocol::Raw);
            (ear, mouth(AddressFamily::Inet), mouth(AddressFamily::Inet6))
        };
        let (ear, mouth4, mouth6) = netns.run(sockets).unwrap();
        Self {
            netns,
            ear,
            mouth4,
            mouth6,
        }
    }

    fn listen(&self, mut hear: impl FnMut(&[u8])) {
        let mut buffer = [0; 2048];
        while let Ok(length) = recv(self.ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            hear(&buffer[..length]);
        }
    }
}

/// Links the node with a neighbour, who has the same gateway as the node: the other end of the link. Its hardware
/// address is known, so that nobody asks. Answers the node's end.
async fn connect(node: &NetNs, name: &str, neighbour: &NetNs) -> u32 {
    let (near, far) = (mac(name, 1), mac(name, 2));
    let here = Netlink::in_namespace(node).unwrap();
    let there = Netlink::in_namespace(neighbour).unwrap();
    let options = VethOptions {
        mtu: None,
        mac: Some(near),
        peer_mac: Some(far),
        peer_netns: Some(neighbour),
        up: true,
    };
    here.add_veth(name, name, options).await.unwrap();
    let (near_end, far_end) = (index(&here, name).await, index(&there, name).await);
    there.set_up(far_end).await.unwrap();
    for network in everything() {
        let gateway = gateway(network);
        here.replace_neighbour(near_end, gateway, far)
            .await
            .unwrap();
        there
            .replace_neighbour(far_end, gateway, near)
            .await
            .unwrap();
        route(&there, far_end, network).await;
    }
    node.await_ready().unwrap();
    neighbour.await_ready().unwrap();
    near_end
}

fn everything() -> [IpNetwork; 2] {
    ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap())
}

fn gateway(network: IpNetwork) -> IpAddr {
    if network.is_ipv4() {
        [169, 254, 7, 7].into()
    } else {
        [0xfe80, 0, 0, 0, 0, 0, 7, 7].into()
    }
}

async fn route(netlink: &Netlink, link: u32, network: IpNetwork) {
    let route = Route {
        gateway: Some(gateway(network)),
        link: Some(link),
        onlink: true,
        ..Route::new(network, ROUTE_PROTOCOL)
    };
    netlink.add_route(&route).await.unwrap();
}

async fn index(netlink: &Netlink, name: &str) -> u32 {
    netlink.link(name).await.unwrap().unwrap().index
}

fn mac(link: &str, end: u8) -> MacAddr {
    let kind = match link {
        "eth0" => 1,
        VXLAN_LINK => 2,
        _ => 0,
    };
    MacAddr([2, 0, 0, 0, kind, end])
}
