//! `internalTrafficPolicy`, `externalTrafficPolicy`, and the short circuit of clients inside of the cluster.

use super::Tables;
use crate::inputs::TrafficPolicy::{Cluster, Local};

pub(super) fn tables(t: &mut Tables) {
    t.scene(
        "internalTrafficPolicy Local",
        |s| {
            s.expose();
            s.policies(Local, Cluster);
        },
        "
        pod      -> cluster:80/tcp  = here
        here     -> cluster:80/tcp  = here+masq
        farpod   -> cluster:80/tcp  = here
        node     -> cluster:80/tcp  = here+masq
        stranger -> cluster:80/tcp  = here+masq
        pod      -> node:30080/tcp  = here+masq there+masq
        stranger -> node:30080/tcp  = here+masq there+masq
        stranger -> balancer:80/tcp = here+masq there+masq
        stranger -> external:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "externalTrafficPolicy Cluster",
        |s| s.expose(),
        "
        pod       -> node:30080/tcp  = here+masq there+masq
        node      -> node:30080/tcp  = here+masq there+masq
        othernode -> node:30080/tcp  = here+masq there+masq
        stranger  -> node:30080/tcp  = here+masq there+masq
        pod       -> balancer:80/tcp = here+masq there+masq
        node      -> balancer:80/tcp = here+masq there+masq
        stranger  -> balancer:80/tcp = here+masq there+masq
        pod       -> external:80/tcp = here+masq there+masq
        stranger  -> external:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "externalTrafficPolicy Local",
        |s| {
            s.expose();
            s.policies(Cluster, Local);
        },
        "
        stranger  -> node:30080/tcp  = here
        othernode -> node:30080/tcp  = here
        stranger  -> balancer:80/tcp = here
        stranger  -> external:80/tcp = here
        pod       -> node:30080/tcp  = here there
        farpod    -> node:30080/tcp  = here there
        here      -> balancer:80/tcp = here+masq there
        pod       -> balancer:80/tcp = here there
        pod       -> external:80/tcp = here there
        node      -> node:30080/tcp  = here+masq there+masq
        node      -> balancer:80/tcp = here+masq there+masq
        node      -> external:80/tcp = here+masq there+masq
        pod       -> cluster:80/tcp  = here there
        stranger  -> cluster:80/tcp  = here+masq there+masq
        ",
    );
    t.scene(
        "both policies Local",
        |s| {
            s.expose();
            s.policies(Local, Local);
        },
        "
        pod      -> cluster:80/tcp  = here
        stranger -> cluster:80/tcp  = here+masq
        stranger -> node:30080/tcp  = here
        pod      -> node:30080/tcp  = here there
        node     -> balancer:80/tcp = here+masq there+masq
        ",
    );
    t.scene(
        "policy Local without an endpoint here drops what it concerns",
        |s| {
            s.expose();
            s.policies(Local, Local);
            s.endpoints(&["there rs", "there2 rs"]);
        },
        "
        pod      -> cluster:80/tcp  = drop
        node     -> cluster:80/tcp  = drop
        stranger -> cluster:80/tcp  = drop
        stranger -> node:30080/tcp  = drop
        stranger -> balancer:80/tcp = drop
        stranger -> external:80/tcp = drop
        pod      -> node:30080/tcp  = there there2
        node     -> node:30080/tcp  = there+masq there2+masq
        pod      -> balancer:80/tcp = there there2
        node     -> external:80/tcp = there+masq there2+masq
        ",
    );
    t.scene(
        "externalTrafficPolicy Local of a cluster IP alone means nothing",
        |s| s.policies(Cluster, Local),
        "
        pod      -> cluster:80/tcp = here there
        stranger -> cluster:80/tcp = here+masq there+masq
        ",
    );
}
