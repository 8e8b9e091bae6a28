//! Cluster IPs: who may ask, in which protocol, at which port.

use super::{Tables, names, port, service};
use crate::inputs::{Family, Protocol, SlicePort};

pub(super) fn tables(t: &mut Tables) {
    t.scene(
        "cluster IP",
        |_| {},
        "
        pod       -> cluster:80/tcp = here there
        here      -> cluster:80/tcp = here+masq there
        there     -> cluster:80/tcp = here there+masq
        farpod    -> cluster:80/tcp = here there
        node      -> cluster:80/tcp = here+masq there+masq
        othernode -> cluster:80/tcp = here+masq there+masq
        stranger  -> cluster:80/tcp = here+masq there+masq
        ",
    );
    for (name, protocol, table) in [
        (
            "UDP",
            Protocol::Udp,
            "
            pod      -> cluster:80/udp  = here there
            node     -> cluster:80/udp  = here+masq there+masq
            stranger -> cluster:80/udp  = here+masq there+masq
            pod      -> cluster:80/tcp  = reject
            pod      -> cluster:80/sctp = reject
            ",
        ),
        (
            "SCTP",
            Protocol::Sctp,
            "
            pod      -> cluster:80/sctp = here there
            here     -> cluster:80/sctp = here+masq there
            stranger -> cluster:80/sctp = here+masq there+masq
            pod      -> cluster:80/udp  = reject
            ",
        ),
    ] {
        t.scene(
            name,
            |s| {
                s.web.ports[0].protocol = protocol;
                s.slices[0].ports[0].protocol = protocol;
            },
            table,
        );
    }
    t.scene(
        "the same port number in three protocols",
        |s| {
            for (name, protocol, target) in [
                ("dns", Protocol::Udp, 5353),
                ("assoc", Protocol::Sctp, 9899),
            ] {
                s.web.ports.push(port(name, protocol, 80));
                s.slices[0].ports.push(SlicePort {
                    name: name.into(),
                    protocol,
                    port: target,
                });
            }
        },
        "
        pod -> cluster:80/tcp  = here:8080 there:8080
        pod -> cluster:80/udp  = here:5353 there:5353
        pod -> cluster:80/sctp = here:9899 there:9899
        pod -> cluster:81/tcp  = reject
        ",
    );
    t.scene(
        "two Services do not serve each other's ports",
        |s| {
            let ports = vec![port("http", Protocol::Tcp, 8000)];
            let other = service("api", vec![s.ip("cluster2")], ports);
            let mut slice = s.slices[0].clone();
            slice.key = crate::inputs::ObjectKey::new("default", "api-1");
            slice.service = slice.key.neighbour("api");
            slice.endpoints = vec![s.endpoint("there2 rs")];
            s.others.push(other);
            s.slices.push(slice);
        },
        "
        pod -> cluster:80/tcp    = here there
        pod -> cluster2:8000/tcp = there2
        pod -> cluster:8000/tcp  = reject
        pod -> cluster2:80/tcp   = reject
        ",
    );
    t.scene(
        "dual stack: each family has its own endpoints",
        |s| {
            let other = match s.family {
                Family::V4 => Family::V6,
                Family::V6 => Family::V4,
            };
            s.web.cluster_ips.push(names::address("cluster", other));
            let mut slice = s.slices[0].clone();
            slice.key = crate::inputs::ObjectKey::new("default", "web-other");
            slice.family = other;
            for (endpoint, name) in slice.endpoints.iter_mut().zip(["here2", "there2"]) {
                endpoint.address = names::address(name, other);
            }
            s.slices.push(slice);
        },
        "
        pod      -> cluster:80/tcp = here there
        stranger -> cluster:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "single stack: addresses of the other family are not served",
        |s| {
            let other = match s.family {
                Family::V4 => Family::V6,
                Family::V6 => Family::V4,
            };
            s.web.cluster_ips = vec![names::address("cluster", other)];
            s.web.ports[0].node_port = Some(30_080);
            s.web.load_balancer_ips = vec![s.ip("balancer")];
        },
        "
        pod      -> cluster:80/tcp  = pass
        stranger -> node:30080/tcp  = pass
        stranger -> balancer:80/tcp = pass
        ",
    );
}
