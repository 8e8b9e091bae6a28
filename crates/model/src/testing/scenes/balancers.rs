//! Load balancer addresses and `loadBalancerSourceRanges`.

use ipnetwork::IpNetwork;

use super::{Tables, names};
use crate::inputs::TrafficPolicy::{Cluster, Local};

pub(super) fn tables(t: &mut Tables) {
    t.scene(
        "source ranges guard the load balancer only",
        |s| {
            s.expose();
            s.web.source_ranges = names::friends();
        },
        "
        friend   -> balancer:80/tcp = here+masq there+masq
        stranger -> balancer:80/tcp = drop
        pod      -> balancer:80/tcp = drop
        here     -> balancer:80/tcp = drop
        node     -> balancer:80/tcp = drop
        stranger -> node:30080/tcp  = here+masq there+masq
        stranger -> external:80/tcp = here+masq there+masq
        stranger -> cluster:80/tcp  = here+masq there+masq
        pod      -> cluster:80/tcp  = here there
        ",
    );
    t.scene(
        "source ranges with externalTrafficPolicy Local",
        |s| {
            s.expose();
            s.policies(Cluster, Local);
            s.web.source_ranges = names::friends();
            s.web.source_ranges.extend(names::cluster_cidrs());
        },
        "
        friend   -> balancer:80/tcp = here
        stranger -> balancer:80/tcp = drop
        pod      -> balancer:80/tcp = here there
        node     -> balancer:80/tcp = drop
        stranger -> node:30080/tcp  = here
        ",
    );
    t.scene(
        "a range that covers everybody lifts the restriction",
        |s| {
            s.expose();
            s.web.source_ranges = names::friends();
            let everybody = ["0.0.0.0/0", "::/0"].map(|range| range.parse::<IpNetwork>());
            s.web.source_ranges.extend(everybody.into_iter().flatten());
        },
        "
        stranger -> balancer:80/tcp = here+masq there+masq
        pod      -> balancer:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "a node in range may use the load balancer's address as its own",
        |s| {
            s.expose();
            s.web.load_balancer_ips.push(s.ip("balancer2"));
            s.web.source_ranges = vec![IpNetwork::from(s.ip("node"))];
        },
        "
        node      -> balancer:80/tcp  = here+masq there+masq
        balancer  -> balancer:80/tcp  = here+masq there+masq
        balancer2 -> balancer:80/tcp  = here+masq there+masq
        balancer  -> balancer2:80/tcp = here+masq there+masq
        external  -> balancer:80/tcp  = drop
        node2     -> balancer:80/tcp  = drop
        ",
    );
    t.scene(
        "a node out of range may not",
        |s| {
            s.expose();
            s.web.source_ranges = names::friends();
        },
        "
        balancer -> balancer:80/tcp = drop
        friend   -> balancer:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "an address that is external IP and load balancer keeps its ranges",
        |s| {
            s.expose();
            s.web.external_ips = vec![s.ip("balancer")];
            s.web.source_ranges = names::friends();
        },
        "
        friend   -> balancer:80/tcp = here+masq there+masq
        stranger -> balancer:80/tcp = drop
        ",
    );
    t.scene(
        "two addresses, one port that the Service does not have",
        |s| {
            s.expose();
            s.web.load_balancer_ips.push(s.ip("balancer2"));
        },
        "
        stranger -> balancer2:80/tcp = here+masq there+masq
        stranger -> balancer2:81/tcp = pass
        stranger -> balancer:81/tcp  = pass
        ",
    );
}
