//! What ADD does, step by step, and what DEL does: the same backwards. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use seaway_kernel::MacAddr;

use crate::attachment::{Attachment, everything, gateway};

/// One step. `Pod` steps act on the pod's interface inside of its namespace, `Host` steps on the host side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Creates the pair in one go: the pod's end inside of the pod's namespace, the other on the node, both under
    /// their final names.
    CreateVeth {
        pod_name: String,
        pod_mac: MacAddr,
        host_name: String,
        host_mac: MacAddr,
        mtu: u32,
    },
    /// Writes a setting of the host side.
    HostSetting {
        key: String,
        value: &'static str,
    },
    HostUp,
    PodAddress(IpNetwork),
    /// Permanent, so that the pod never asks for its gateway and nobody needs to answer.
    PodNeighbour {
        address: IpAddr,
        mac: MacAddr,
    },
    /// The gateway is on the link.
    PodGatewayRoute(IpAddr),
    PodDefaultRoute {
        destination: IpNetwork,
        gateway: IpAddr,
    },
    /// Permanent, so that the node never asks for the pod.
    HostNeighbour {
        address: IpAddr,
        mac: MacAddr,
    },
    /// From here on the pod is reached.
    HostRoute(IpAddr),
    /// The kernel drops what is sent over a veth until a worker of its own has seen that both ends are up.
    AwaitCarrier,
    /// An IPv6 address receives nothing until a worker of the kernel has made its route.
    AwaitPodAddress(IpAddr),
}

/// What takes a step back. Deleting one end of a veth takes the other end with it, and with both everything that the
/// later steps made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    DeleteHostLink(String),
}

/// The steps of ADD.
pub fn add(attachment: &Attachment) -> Vec<Step> {
    let mut steps = vec![
        Step::CreateVeth {
            pod_name: attachment.ifname.clone(),
            pod_mac: attachment.pod_mac,
            host_name: attachment.host_link.clone(),
            host_mac: attachment.host_mac,
            mtu: attachment.mtu,
        },
        // The kernel drops what the pod sends from an address that is not its own.
        Step::HostSetting {
            key: format!("net/ipv4/conf/{}/rp_filter", attachment.host_link),
            value: "1",
        },
        Step::HostUp,
    ];
    for &address in &attachment.addresses {
        let gateway = gateway(address);
        steps.extend([
            Step::PodAddress(address.into()),
            Step::PodNeighbour {
                address: gateway,
                mac: attachment.host_mac,
            },
            Step::PodGatewayRoute(gateway),
            Step::PodDefaultRoute {
                destination: everything(address),
                gateway,
            },
            Step::HostNeighbour {
                address,
                mac: attachment.pod_mac,
            },
            Step::HostRoute(address),
        ]);
    }
    steps.push(Step::AwaitCarrier);
    let late = attachment.addresses.iter().filter(|ip| ip.is_ipv6());
    steps.extend(late.map(|address| Step::AwaitPodAddress(*address)));
    steps
}

impl Step {
    /// What takes this step back by itself; `None` when an earlier step's undoing covers it.
    pub fn undo(&self) -> Option<Undo> {
        match self {
            Self::CreateVeth { host_name, .. } => Some(Undo::DeleteHostLink(host_name.clone())),
            _ => None,
        }
    }
}

/// What takes back those steps, last first.
pub fn backwards(done: &[Step]) -> Vec<Undo> {
    done.iter().rev().filter_map(Step::undo).collect()
}

/// The steps of DEL. They need neither the pod's namespace nor its addresses.
pub fn del(attachment: &Attachment) -> Vec<Undo> {
    backwards(&add(attachment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnerKey;

    fn attachment(addresses: &[&str]) -> Attachment {
        let owner = OwnerKey {
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Attachment::new(&owner, addresses, 1450, None)
    }

    #[test]
    fn add_makes_a_routed_veth() {
        let text: String = add(&attachment(&["10.244.1.5"]))
            .iter()
            .map(|step| format!("{step:?}\n"))
            .collect();
        expect_test::expect![[r#"
            CreateVeth { pod_name: "eth0", pod_mac: MacAddr([242, 18, 80, 177, 132, 94]), host_name: "swd72e032fedd", host_mac: MacAddr([178, 206, 175, 14, 106, 160]), mtu: 1450 }
            HostSetting { key: "net/ipv4/conf/swd72e032fedd/rp_filter", value: "1" }
            HostUp
            PodAddress(V4(Ipv4Network { addr: 10.244.1.5, prefix: 32 }))
            PodNeighbour { address: 169.254.1.1, mac: MacAddr([178, 206, 175, 14, 106, 160]) }
            PodGatewayRoute(169.254.1.1)
            PodDefaultRoute { destination: V4(Ipv4Network { addr: 0.0.0.0, prefix: 0 }), gateway: 169.254.1.1 }
            HostNeighbour { address: 10.244.1.5, mac: MacAddr([242, 18, 80, 177, 132, 94]) }
            HostRoute(10.244.1.5)
            AwaitCarrier
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn del_is_the_plan_backwards_and_needs_no_address() {
        let with = attachment(&["10.244.1.5", "fd00::5"]);
        assert_eq!(del(&with), [Undo::DeleteHostLink(with.host_link.clone())]);
        assert_eq!(del(&with), del(&attachment(&[])));
        assert_eq!(backwards(&add(&with)[1..]), []);
    }
}
