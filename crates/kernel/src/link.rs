//! Links: veth pairs, bridges, the VXLAN device, and whatever else is there to be seen.

mod create;
mod offload;
mod tun;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::{Error, MacAddr, NetNs, Netlink};

pub use create::VethOptions;
pub(crate) use create::veth_message;
pub use offload::Offload;
pub use tun::open_tun;

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: LinkKind,
    pub mtu: u32,
    pub mac: Option<MacAddr>,
    pub framing: Framing,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it can carry packets now (`operstate` up, or for good unknown as for loopback and tunnels).
    pub running: bool,
    /// The bridge (or the like) that it is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair, or the device that a virtual device stands on; an index in
    /// [`Link::peer_netns`] if that is given.
    pub peer: Option<u32>,
    /// The kernel's id for the namespace of `peer`, when it is another one.
    pub peer_netns: Option<i32>,
}

/// What stands in front of the IP header of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    Ethernet,
    /// Nothing, as with tun, WireGuard or IPIP (`dev_is_mac_header_xmit`).
    None,
    /// Something else, as with `InfiniBand`.
    Other,
}

/// What sort of link it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A real device, or loopback.
    Device,
    Veth,
    Bridge,
    Vxlan(VxlanSettings),
    /// Any other, by the kernel's name.
    Other(String),
}

/// What cannot be changed on a VXLAN device after it was created, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanSettings {
    /// Takes VNI and remote address from the route (collect-metadata mode, `ip link add … type vxlan external`).
    pub external: bool,
    /// UDP destination port.
    pub port: u16,
    /// Learns forwarding entries from received packets.
    pub learning: bool,
    pub vni: u32,
    /// The device that it is bound to, if any.
    pub lower: Option<u32>,
}

impl Netlink {
    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(request, "links").await?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// The link of that name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_name(name).build();
        self.get_link(message, || format!("link {name}")).await
    }

    /// The link of that index.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let message = LinkUnspec::new_with_index(index).build();
        self.get_link(message, || format!("link {index}")).await
    }

    async fn get_link(
        &self,
        message: LinkMessage,
        object: impl FnOnce() -> String,
    ) -> Result<Option<Link>, Error> {
        let answer = self
            .get(RouteNetlinkMessage::GetLink(message), "look up", object)
            .await?;
        Ok(answer.and_then(link_of))
    }

    /// Sets a link up.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.set_link(index, "set up", LinkMessageBuilder::up).await
    }

    /// Sets a link down. The kernel then drops its routes and neighbours.
    pub async fn set_down(&self, index: u32) -> Result<(), Error> {
        self.set_link(index, "set down", LinkMessageBuilder::down)
            .await
    }

    /// Sets the MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set_link(index, "set the MTU of", |m| m.mtu(mtu)).await
    }

    /// Makes a link a port of another (a bridge), or of none.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<(), Error> {
        self.set_link(index, "set the master of", |m| {
            m.controller(master.unwrap_or(0))
        })
        .await
    }

    /// Sets the link-layer address.
    pub async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.set_link(index, "set the address of", |m| m.address(mac.0.to_vec()))
            .await
    }

    /// Renames a link.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), Error> {
        self.set_link(index, "rename", |m| m.name(name)).await
    }

    /// Moves a link into another namespace.
    pub async fn move_to(&self, index: u32, netns: &NetNs) -> Result<(), Error> {
        use std::os::fd::{AsFd, AsRawFd};
        let fd = netns.as_fd().as_raw_fd();
        self.set_link(index, "move", |m| m.setns_by_fd(fd)).await
    }

    /// Deletes a link (a veth with its peer); it is fine if there is none.
    pub async fn delete_link(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).build();
        self.delete(RouteNetlinkMessage::DelLink(message), || {
            format!("link {index}")
        })
        .await
    }

    /// Deletes a link by name, without looking it up first; it is fine if there is none.
    pub async fn delete_link_named(&self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).build();
        self.delete(RouteNetlinkMessage::DelLink(message), || {
            format!("link {name}")
        })
        .await
    }

    async fn set_link(
        &self,
        index: u32,
        operation: &'static str,
        with: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = with(LinkUnspec::new_with_index(index)).build();
        self.change(RouteNetlinkMessage::SetLink(message), 0, operation, || {
            format!("link {index}")
        })
        .await
    }
}

pub(crate) fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(convert(message)),
        _ => None,
    }
}

pub(crate) fn convert(message: LinkMessage) -> Link {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Device,
        mtu: 0,
        mac: None,
        framing: framing(message.header.link_layer_type),
        up,
        running: false,
        master: None,
        peer: None,
        peer_netns: None,
    };
    let mut state = State::Unknown;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = MacAddr::from_bytes(&bytes),
            LinkAttribute::OperState(reported) => state = reported,
            LinkAttribute::Controller(index) => link.master = Some(index).filter(|i| *i != 0),
            LinkAttribute::Link(index) => link.peer = Some(index).filter(|i| *i != 0),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
            LinkAttribute::LinkInfo(infos) => link.kind = kind_of(&infos),
            _ => {}
        }
    }
    link.running = up
        && match state {
            State::Up => true,
            // A veth has a state as soon as the kernel has looked at it (net/core/link_watch.c), and sends nothing before.
            State::Unknown => link.kind != LinkKind::Veth,
            _ => false,
        };
    link
}

fn framing(kind: LinkLayerType) -> Framing {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Framing::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre
        | LinkLayerType::Ip6gre
        | LinkLayerType::Void
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp => Framing::None,
        _ => Framing::Other,
    }
}

fn kind_of(infos: &[LinkInfo]) -> LinkKind {
    let name = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    match name.as_deref() {
        None => LinkKind::Device,
        Some("veth") => LinkKind::Veth,
        Some("bridge") => LinkKind::Bridge,
        Some("vxlan") => LinkKind::Vxlan(vxlan_of(infos)),
        Some(other) => LinkKind::Other(other.to_owned()),
    }
}

fn vxlan_of(infos: &[LinkInfo]) -> VxlanSettings {
    let mut settings = VxlanSettings {
        external: false,
        port: 0,
        learning: false,
        vni: 0,
        lower: None,
    };
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data.as_slice()),
        _ => None,
    });
    for info in data.unwrap_or_default() {
        match info {
            InfoVxlan::CollectMetadata(on) => settings.external = *on,
            InfoVxlan::Port(port) => settings.port = *port,
            InfoVxlan::Learning(on) => settings.learning = *on,
            InfoVxlan::Id(vni) => settings.vni = *vni,
            InfoVxlan::Link(index) => settings.lower = Some(*index).filter(|i| *i != 0),
            _ => {}
        }
    }
    settings
}
