//! Who hears no at once, and who hears nothing.

use super::{Tables, names};
use crate::inputs::TrafficPolicy::{Cluster, Local};

pub(super) fn tables(t: &mut Tables) {
    let nobody = "
        pod      -> cluster:80/tcp  = reject
        node     -> cluster:80/tcp  = reject
        stranger -> cluster:80/tcp  = reject
        pod      -> node:30080/tcp  = reject
        stranger -> node:30080/tcp  = reject
        node     -> node:30080/tcp  = reject
        pod      -> balancer:80/tcp = reject
        stranger -> balancer:80/tcp = reject
        stranger -> external:80/tcp = reject
        ";
    t.scene(
        "no endpoint anywhere",
        |s| {
            s.expose();
            s.slices.clear();
        },
        nobody,
    );
    t.scene(
        "no endpoint anywhere, policies Local",
        |s| {
            s.expose();
            s.policies(Local, Local);
            s.endpoints(&["here -", "there -"]);
        },
        nobody,
    );
    t.scene(
        "no endpoint anywhere: source ranges still hold",
        |s| {
            s.expose();
            s.slices.clear();
            s.web.source_ranges = names::friends();
        },
        "
        friend   -> balancer:80/tcp = reject
        stranger -> balancer:80/tcp = drop
        ",
    );
    t.scene(
        "ports that a live cluster IP does not have",
        |s| s.expose(),
        "
        pod      -> cluster:81/tcp    = reject
        pod      -> cluster:80/udp    = reject
        pod      -> cluster:80/sctp   = reject
        pod      -> cluster:8080/tcp  = reject
        pod      -> cluster:30080/tcp = reject
        node     -> cluster:81/tcp    = reject
        farpod   -> cluster:81/tcp    = reject
        stranger -> cluster:81/udp    = reject
        pod      -> free:80/tcp       = pass
        pod      -> balancer:81/tcp   = pass
        stranger -> external:81/tcp   = pass
        ",
    );
    t.scene(
        "unknown ports are refused without endpoints as well",
        |s| s.slices.clear(),
        "
        pod -> cluster:80/tcp = reject
        pod -> cluster:81/tcp = reject
        ",
    );
    t.scene(
        "unknown ports are refused, not dropped, where policy Local has nobody here",
        |s| {
            s.policies(Local, Cluster);
            s.endpoints(&["there rs"]);
        },
        "
        pod -> cluster:80/tcp = drop
        pod -> cluster:81/tcp = reject
        ",
    );
}
