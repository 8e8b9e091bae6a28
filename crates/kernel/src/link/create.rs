//! Creating links.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use crate::{Error, MacAddr, NetNs, Netlink};

/// What a veth pair is created with; both ends exist, or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct VethOptions<'a> {
    /// Both ends; the kernel's default (1500) if not given.
    pub mtu: Option<u32>,
    /// The near end's link-layer address; random if not given.
    pub mac: Option<MacAddr>,
    /// The far end's link-layer address; random if not given.
    pub peer_mac: Option<MacAddr>,
    /// The namespace that the far end is created in, under its final name: it is never seen anywhere else.
    pub peer_netns: Option<&'a NetNs>,
    /// The near end is up at once. The far end cannot be: the kernel refuses to open a veth before it has its peer.
    pub up: bool,
}

impl Netlink {
    /// Creates a veth pair: `name` here, `peer` here or where the options say.
    pub async fn add_veth(
        &self,
        name: &str,
        peer: &str,
        options: VethOptions<'_>,
    ) -> Result<(), Error> {
        self.add_link(veth_message(name, peer, options), || {
            format!("veth pair {name} and {peer}")
        })
        .await
    }

    /// Creates a bridge and sets it up.
    pub async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        self.add_link(LinkBridge::new(name).build(), || format!("bridge {name}"))
            .await
    }

    /// Creates a VXLAN device in external (collect-metadata) mode: VNI and remote address come with the route of
    /// each packet, nothing is learned or flooded. It is bound to no lower device, so its MTU is the caller's matter.
    /// At most one such device fits a port in a namespace.
    pub async fn add_vxlan_external(
        &self,
        name: &str,
        port: u16,
        mac: MacAddr,
        mtu: u32,
    ) -> Result<(), Error> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .collect_metadata(true)
            .port(port)
            .learning(false)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .build();
        self.add_link(message, || format!("VXLAN device {name} (UDP port {port})"))
            .await
    }

    async fn add_link(
        &self,
        message: LinkMessage,
        object: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            "create",
            object,
        )
        .await
    }
}

/// Creates a veth pair.
pub(crate) fn veth_message(name: &str, peer: &str, options: VethOptions<'_>) -> LinkMessage {
    let mut far = LinkUnspec::new_with_name(peer);
    if let Some(netns) = options.peer_netns {
        far = far.setns_by_fd(netns.as_fd().as_raw_fd());
    }
    let far = end(far, options, options.peer_mac).build();
    let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(name);
    let near = end(near, options, options.mac);
    let near = if options.up { near.up() } else { near };
    near.set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .build()
}

fn end<T>(
    mut message: LinkMessageBuilder<T>,
    options: VethOptions<'_>,
    mac: Option<MacAddr>,
) -> LinkMessageBuilder<T> {
    if let Some(mtu) = options.mtu {
        message = message.mtu(mtu);
    }
    if let Some(mac) = mac {
        message = message.address(mac.0.to_vec());
    }
    message
}
