//! The network between the nodes: one bridge, one link for each node and for the client outside.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::{NetNs, Netlink, Route, Scope, VethOptions};

use crate::topology::{api_address, outside_address, underlay_network};
use crate::{LabConfig, LabError};

/// The bridge in the fabric namespace; the API server's address is on it.
const BRIDGE: &str = "br0";

/// The underlay's link in every namespace that hangs on the bridge.
pub(crate) const UPLINK: &str = "eth0";

/// `RTPROT_STATIC`: what an administrator adds.
const STATIC: u8 = 4;

/// Creates all namespaces and links of the underlay.
pub(crate) async fn create(config: &LabConfig) -> Result<(), LabError> {
    let name = &config.name;
    let fabric = NetNs::create(&name.fabric_netns())?;
    let bridge = Bridge::create(&fabric).await?;
    for node in &config.nodes {
        let netns = NetNs::create(&name.node_netns(&node.name))?;
        bridge.attach(&node.name, &netns, node.address()).await?;
    }
    let outside = NetNs::create(&name.outside_netns())?;
    bridge.attach("ext", &outside, outside_address()).await
}

struct Bridge {
    netlink: Netlink,
    index: u32,
}

impl Bridge {
    async fn create(fabric: &NetNs) -> Result<Self, LabError> {
        let netlink = Netlink::in_namespace(fabric)?;
        netlink.add_bridge(BRIDGE).await?;
        let index = index_of(&netlink, BRIDGE).await?;
        netlink
            .add_address(index, within_underlay(api_address()), Scope::Global)
            .await?;
        Ok(Self { netlink, index })
    }

    /// Gives a namespace its uplink, address and default route. The route leads to the fabric, which forwards nothing:
    /// it is there because a process of a node may only call an address that some route covers, translated or not.
    async fn attach(&self, port: &str, netns: &NetNs, addr: IpAddr) -> Result<(), LabError> {
        let options = VethOptions {
            peer_netns: Some(netns),
            ..VethOptions::default()
        };
        self.netlink.add_veth(port, UPLINK, options).await?;
        let near = index_of(&self.netlink, port).await?;
        self.netlink.set_master(near, Some(self.index)).await?;
        self.netlink.set_up(near).await?;

        let inside = Netlink::in_namespace(netns)?;
        let far = index_of(&inside, UPLINK).await?;
        inside
            .add_address(far, within_underlay(addr), Scope::Global)
            .await?;
        inside.set_up(far).await?;
        let anywhere = IpNetwork::from(IpAddr::from([0, 0, 0, 0]));
        let anywhere = IpNetwork::new(anywhere.ip(), 0).unwrap_or(anywhere);
        let mut route = Route::new(anywhere, STATIC);
        route.gateway = Some(api_address());
        inside.add_route(&route).await?;
        Ok(())
    }
}

fn within_underlay(addr: IpAddr) -> IpNetwork {
    let prefix = underlay_network().prefix();
    IpNetwork::new(addr, prefix).unwrap_or_else(|_| IpNetwork::from(addr))
}

async fn index_of(netlink: &Netlink, name: &str) -> Result<u32, LabError> {
    let link = netlink.link(name).await?;
    link.map(|link| link.index)
        .ok_or_else(|| LabError::Invalid(format!("link {name} vanished")))
}
