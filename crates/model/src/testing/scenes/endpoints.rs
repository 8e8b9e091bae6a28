//! Conditions of endpoints, and many slices.

use super::Tables;
use crate::inputs::TrafficPolicy::Local;

pub(super) fn tables(t: &mut Tables) {
    let mut conditions = |name, endpoints: &[&str], table| {
        t.scene(
            name,
            |s| {
                s.expose();
                s.policies(crate::inputs::TrafficPolicy::Cluster, Local);
                s.endpoints(endpoints);
            },
            table,
        );
    };
    conditions(
        "terminating endpoints are left alone while one is ready",
        &["here st", "there rs"],
        "
        pod      -> cluster:80/tcp  = there
        stranger -> balancer:80/tcp = here
        pod      -> balancer:80/tcp = there
        ",
    );
    conditions(
        "terminating endpoints serve when none is ready",
        &["here st", "there st", "there2 t"],
        "
        pod      -> cluster:80/tcp  = here there
        stranger -> balancer:80/tcp = here
        node     -> node:30080/tcp  = here+masq there+masq
        ",
    );
    conditions(
        "terminating endpoints here are left alone while another here is ready",
        &["here rs", "here2 st", "there rs"],
        "
        pod      -> cluster:80/tcp  = here there
        stranger -> balancer:80/tcp = here
        ",
    );
    conditions(
        "serving but neither ready nor terminating gets nothing",
        &["here s", "there rs"],
        "
        pod      -> cluster:80/tcp  = there
        stranger -> balancer:80/tcp = drop
        ",
    );
    conditions(
        "terminating and not serving gets nothing",
        &["here t", "there t"],
        "
        pod      -> cluster:80/tcp  = reject
        stranger -> balancer:80/tcp = reject
        ",
    );
    conditions(
        "publishNotReadyAddresses shows as ready, whatever else it says",
        &["here r", "there rst"],
        "
        pod      -> cluster:80/tcp  = here there
        stranger -> balancer:80/tcp = here
        ",
    );
    t.scene(
        "endpoints of all slices, each with the port number of its slice",
        |s| {
            s.endpoints(&["here rs"]);
            s.slice("web-2", 9090, &["there rs", "here2 rs"]);
            s.slice("web-3", 9091, &["there2 rs"]);
        },
        "pod -> cluster:80/tcp = here there:9090 here2:9090 there2:9091",
    );
    t.scene(
        "an endpoint in two slices counts once",
        |s| {
            s.endpoints(&["here rs", "there rs"]);
            s.slice("web-2", 8080, &["there rs"]);
        },
        "pod -> cluster:80/tcp = here there",
    );
    t.scene(
        "an endpoint that moves between slices keeps the better state",
        |s| {
            s.endpoints(&["here rs", "there -"]);
            s.slice("web-2", 8080, &["there rs"]);
        },
        "pod -> cluster:80/tcp = here there",
    );
    t.scene(
        "an endpoint that moves between slices keeps its hint",
        |s| {
            s.own.zone = Some("b".into());
            s.endpoints(&["here rs zone=a", "there rs"]);
            s.slice("web-2", 8080, &["there rs zone=b"]);
        },
        "pod -> cluster:80/tcp = there",
    );
    t.scene(
        "a slice of another port name is not joined",
        |s| {
            s.slice("web-2", 9100, &["there2 rs"]);
            s.slices[1].ports[0].name = "metrics".into();
        },
        "pod -> cluster:80/tcp = here there",
    );
}
