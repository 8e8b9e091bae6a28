//! Whose source address is kept: `--masquerade-all` and the ways to tell a pod.

use super::{Tables, names};
use crate::inputs::TrafficPolicy::{Cluster, Local};
use crate::settings::DetectLocal;

pub(super) fn tables(t: &mut Tables) {
    t.scene(
        "--masquerade-all concerns cluster IPs",
        |s| {
            s.expose();
            s.policies(Cluster, Local);
            s.node.masquerade_all = true;
        },
        "
        pod      -> cluster:80/tcp  = here+masq there+masq
        farpod   -> cluster:80/tcp  = here+masq there+masq
        stranger -> cluster:80/tcp  = here+masq there+masq
        pod      -> balancer:80/tcp = here there
        stranger -> balancer:80/tcp = here
        ",
    );
    let known_by_node = "
        pod      -> cluster:80/tcp  = here there
        here     -> cluster:80/tcp  = here+masq there
        farpod   -> cluster:80/tcp  = here+masq there+masq
        node     -> cluster:80/tcp  = here+masq there+masq
        stranger -> cluster:80/tcp  = here+masq there+masq
        pod      -> balancer:80/tcp = here there
        farpod   -> balancer:80/tcp = here
        node     -> balancer:80/tcp = here+masq there+masq
        stranger -> balancer:80/tcp = here
        ";
    for (name, detect_local) in [
        (
            "detect local: NodeCIDR",
            DetectLocal::NodeCidr(names::node_cidrs()),
        ),
        (
            "detect local: BridgeInterface",
            DetectLocal::BridgeInterface("cni0".to_owned()),
        ),
        (
            "detect local: InterfaceNamePrefix",
            DetectLocal::InterfaceNamePrefix("sw".to_owned()),
        ),
    ] {
        t.scene(
            name,
            |s| {
                s.expose();
                s.policies(Cluster, Local);
                s.node.detect_local = detect_local;
            },
            known_by_node,
        );
    }
    let unknown = "
        pod      -> cluster:80/tcp  = here there
        here     -> cluster:80/tcp  = here+masq there
        node     -> cluster:80/tcp  = here there
        stranger -> cluster:80/tcp  = here there
        pod      -> balancer:80/tcp = here
        node     -> balancer:80/tcp = here+masq there+masq
        stranger -> balancer:80/tcp = here
        ";
    for (name, detect_local) in [
        ("detect local: none", DetectLocal::None),
        (
            "detect local: no range of any family",
            DetectLocal::ClusterCidr(Vec::new()),
        ),
    ] {
        t.scene(
            name,
            |s| {
                s.expose();
                s.policies(Cluster, Local);
                s.node.detect_local = detect_local;
            },
            unknown,
        );
    }
}
