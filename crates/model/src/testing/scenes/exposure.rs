//! Node ports and external IPs: on which addresses.

use ipnetwork::IpNetwork;

use super::Tables;
use crate::inputs::Protocol;

pub(super) fn tables(t: &mut Tables) {
    t.scene(
        "node port on every address of the node but loopback",
        |s| s.expose(),
        "
        stranger -> node:30080/tcp      = here+masq there+masq
        stranger -> node2:30080/tcp     = here+masq there+masq
        node     -> loopback:30080/tcp  = pass
        node     -> othernode:30080/tcp = pass
        stranger -> node:30080/udp      = pass
        stranger -> node:30081/tcp      = pass
        stranger -> node:80/tcp         = pass
        ",
    );
    t.scene(
        "node port on loopback, where sockets are translated",
        |s| {
            s.expose();
            s.node.loopback_node_ports = true;
        },
        "
        node     -> loopback:30080/tcp = here+masq there+masq
        node     -> loopback:30081/tcp = pass
        node     -> loopback:80/tcp    = pass
        node     -> node:30080/tcp     = here+masq there+masq
        ",
    );
    t.scene(
        "node port on the primary address",
        |s| {
            s.expose();
            s.node.node_port_addresses = Some(vec![IpNetwork::from(s.ip("node"))]);
        },
        "
        stranger -> node:30080/tcp  = here+masq there+masq
        pod      -> node:30080/tcp  = here+masq there+masq
        stranger -> node2:30080/tcp = pass
        pod      -> node2:30080/tcp = pass
        stranger -> balancer:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "node port on no address",
        |s| {
            s.expose();
            s.node.node_port_addresses = Some(Vec::new());
        },
        "
        stranger -> node:30080/tcp  = pass
        pod      -> node2:30080/tcp = pass
        pod      -> cluster:80/tcp  = here there
        ",
    );
    t.scene(
        "node port of UDP",
        |s| {
            s.expose();
            s.web.ports[0].protocol = Protocol::Udp;
            s.slices[0].ports[0].protocol = Protocol::Udp;
        },
        "
        stranger -> node:30080/udp = here+masq there+masq
        stranger -> node:30080/tcp = pass
        ",
    );
    t.scene(
        "allocateLoadBalancerNodePorts false: a load balancer without node port",
        |s| {
            s.expose();
            s.web.ports[0].node_port = None;
        },
        "
        stranger -> balancer:80/tcp = here+masq there+masq
        stranger -> node:30080/tcp  = pass
        stranger -> node:80/tcp     = pass
        ",
    );
    t.scene(
        "external IPs are served in the allowed ranges only",
        |s| s.web.external_ips = vec![s.ip("external"), s.ip("forbidden")],
        "
        pod      -> external:80/tcp  = here+masq there+masq
        stranger -> external:80/tcp  = here+masq there+masq
        pod      -> forbidden:80/tcp = pass
        stranger -> forbidden:80/tcp = pass
        pod      -> external:81/tcp  = pass
        ",
    );
    t.scene(
        "external IPs are not served without an allowed range",
        |s| {
            s.web.external_ips = vec![s.ip("external")];
            s.settings.external_ip_cidrs.clear();
        },
        "
        pod      -> external:80/tcp = pass
        stranger -> external:80/tcp = pass
        pod      -> cluster:80/tcp  = here there
        ",
    );
    t.scene(
        "an external IP that is an address of the node",
        |s| {
            s.web.external_ips = vec![s.ip("node")];
            s.settings.external_ip_cidrs = vec![IpNetwork::from(s.ip("node"))];
        },
        "
        stranger -> node:80/tcp  = here+masq there+masq
        stranger -> node:81/tcp  = pass
        stranger -> node2:80/tcp = pass
        ",
    );
}
