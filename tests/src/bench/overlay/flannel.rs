//! Two nodes as flannel makes them: pods on a bridge, a route, a neighbour and a forwarding entry for the other node, and
//! its rules for what leaves the cluster; with those of kube-proxy, as in a cluster, or without. Made by hand, from what its
//! VXLAN backend programs.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use seaway_kernel::{Command, NetNs, sysctl};

use crate::bench::one_node::wiring::ip;
use crate::runtimes::Namespace;

/// The nodes and their pods; gone when dropped.
#[derive(Debug)]
pub struct Flannel {
    pods: [Namespace; 2],
    nodes: [Namespace; 2],
    _fabric: Namespace,
}

impl Flannel {
    /// Makes all of it, with these rules on both nodes.
    pub async fn new(rules: &[&str]) -> Result<Self> {
        let fabric = Namespace::new("fabric")?;
        let nodes = [Namespace::new("n1")?, Namespace::new("n2")?];
        let pods = [Namespace::new("pod1")?, Namespace::new("pod2")?];
        ip(fabric.name(), "link add br0 type bridge\nlink set br0 up")?;
        for (number, (node, pod)) in (1..).zip(nodes.iter().zip(&pods)) {
            let other = 3 - number;
            ip(
                fabric.name(),
                &format!(
                    "link add port{number} type veth peer name eth0 netns {}
                     link set port{number} master br0 up",
                    node.name()
                ),
            )?;
            // The VTEPs have the addresses of the subnets, and no neighbour is ever asked for.
            ip(
                node.name(),
                &format!(
                    "address add 192.168.79.{number}/24 dev eth0
                     link set eth0 up
                     route add default via 192.168.79.254 dev eth0
                     link add flannel.1 address 02:00:00:00:01:0{number} mtu 1450 type vxlan id 1 dev eth0 local 192.168.79.{number} dstport 8472 nolearning
                     address add 10.244.{number}.0/32 dev flannel.1
                     link set flannel.1 up
                     neigh add 10.244.{other}.0 lladdr 02:00:00:00:01:0{other} dev flannel.1 nud permanent
                     route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
                     link add cni0 mtu 1450 type bridge
                     address add 10.244.{number}.1/24 dev cni0
                     link set cni0 up
                     link add veth0 mtu 1450 type veth peer name eth0 netns {}
                     link set veth0 master cni0 up",
                    pod.name()
                ),
            )?;
            forwarding_entry(node.netns(), other).await?;
            ip(
                pod.name(),
                &format!(
                    "link set eth0 mtu 1450 up
                     address add {}/24 dev eth0
                     route add default via 10.244.{number}.1",
                    address(number)
                ),
            )?;
            node.netns()
                .run(|| sysctl::write("net.ipv4.ip_forward", "1"))??;
            let own = format!("10.244.{number}.0/24");
            for rules in rules {
                restore(node.netns(), &rules.replace("POD_CIDR", &own)).await?;
            }
        }
        Ok(Self {
            pods,
            nodes,
            _fabric: fabric,
        })
    }

    /// The namespaces of the pods.
    pub fn pods(&self) -> [&NetNs; 2] {
        [self.pods[0].netns(), self.pods[1].netns()]
    }

    /// The namespaces of the nodes, and the address of the second.
    pub fn nodes(&self) -> ([&NetNs; 2], Ipv4Addr) {
        let nodes = [self.nodes[0].netns(), self.nodes[1].netns()];
        (nodes, Ipv4Addr::new(192, 168, 79, 2))
    }

    /// The address of the second pod.
    pub fn target(&self) -> Ipv4Addr {
        address(2)
    }
}

fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, 2)
}

async fn forwarding_entry(node: &NetNs, other: u8) -> Result<()> {
    let mac = format!("02:00:00:00:01:0{other}");
    let peer = format!("192.168.79.{other}");
    Command::new("bridge")
        .args(["fdb", "add", &mac, "dev", "flannel.1", "dst", &peer])
        .args(["self", "permanent"])
        .netns(node)
        .output()
        .await?;
    Ok(())
}

/// flannel's own, as with `--ip-masq`, which its manifest has; `POD_CIDR` is the node's.
pub const MASQUERADE: &str = r"*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s POD_CIDR -d 10.244.0.0/16 -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d POD_CIDR -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d POD_CIDR -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully
COMMIT
";

/// What kube-proxy has in iptables mode (1.30) with one Service, the API server.
pub const KUBE_PROXY: &str = r#"*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-API - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-API -s 192.168.79.254/32 -m comment --comment "default/kubernetes:https" -j KUBE-MARK-MASQ
-A KUBE-SEP-API -p tcp -m comment --comment "default/kubernetes:https" -m tcp -j DNAT --to-destination 192.168.79.254:6443
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-NPX46M4PTMTKRN6Y ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-MARK-MASQ
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/kubernetes:https -> 192.168.79.254:6443" -j KUBE-SEP-API
COMMIT
"#;

/// Adds rules to those that are there.
async fn restore(node: &NetNs, rules: &str) -> Result<()> {
    Command::new("iptables-restore")
        .arg("--noflush")
        .stdin(rules)
        .netns(node)
        .output()
        .await
        .with_context(|| format!("restore the rules of a node:\n{rules}"))?;
    Ok(())
}
