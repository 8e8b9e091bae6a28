//! Topology hints (`trafficDistribution`): kube-proxy's `TestCategorizeEndpoints`, seen from outside.

use super::Tables;
use crate::inputs::TrafficPolicy::Local;

pub(super) fn tables(t: &mut Tables) {
    let mut zone = |name, own: Option<&str>, endpoints: &[&str], table| {
        t.scene(
            name,
            |s| {
                s.own.zone = own.map(Into::into);
                s.endpoints(endpoints);
            },
            table,
        );
    };
    let all = "pod -> cluster:80/tcp = here there there2";
    zone(
        "hints of zones: ours is preferred",
        Some("a"),
        &[
            "here rs zone=a",
            "there rs zone=b",
            "there2 rs zone=a zone=b",
        ],
        "
        pod      -> cluster:80/tcp = here there2
        stranger -> cluster:80/tcp = here+masq there2+masq
        ",
    );
    zone(
        "hints of zones: one endpoint has none",
        Some("a"),
        &["here rs zone=a", "there rs zone=b", "there2 rs"],
        all,
    );
    zone(
        "hints of zones: none is for ours",
        Some("c"),
        &["here rs zone=a", "there rs zone=b", "there2 rs zone=b"],
        all,
    );
    zone(
        "hints of zones: the node has no zone",
        None,
        &["here rs zone=a", "there rs zone=b", "there2 rs zone=b"],
        all,
    );
    zone(
        "hints of zones: an endpoint that is not ready needs none",
        Some("a"),
        &["here rs zone=a", "there rs zone=b", "there2 -"],
        "pod -> cluster:80/tcp = here",
    );
    zone(
        "hints of zones: what is for ours is not ready",
        Some("a"),
        &["here - zone=a", "there rs zone=b", "there2 rs zone=b"],
        "pod -> cluster:80/tcp = there there2",
    );
    zone(
        "hints of zones: nothing is ready, hints do not count",
        Some("a"),
        &["here st zone=a", "there st zone=b", "there2 st zone=b"],
        all,
    );
    zone(
        "hints of nodes: ours is preferred",
        None,
        &["here rs node=n1", "there rs node=n2", "there2 rs node=n2"],
        "
        pod  -> cluster:80/tcp = here
        node -> cluster:80/tcp = here+masq
        ",
    );
    zone(
        "hints of nodes go before those of zones",
        Some("b"),
        &[
            "here rs node=n1 zone=a",
            "there rs node=n2 zone=b",
            "there2 rs node=n2 zone=b",
        ],
        "pod -> cluster:80/tcp = here",
    );
    zone(
        "hints of nodes: none is for ours, zones decide",
        Some("b"),
        &[
            "here rs node=n3 zone=a",
            "there rs node=n2 zone=b",
            "there2 rs node=n2 zone=b",
        ],
        "pod -> cluster:80/tcp = there there2",
    );
    zone(
        "hints of nodes: one endpoint has none, zones decide",
        Some("b"),
        &[
            "here rs node=n1 zone=a",
            "there rs zone=b",
            "there2 rs node=n2 zone=b",
        ],
        "pod -> cluster:80/tcp = there there2",
    );
    zone(
        "hints of nodes: neither nodes nor zones decide",
        Some("b"),
        &[
            "here rs node=n1",
            "there rs zone=b",
            "there2 rs node=n2 zone=b",
        ],
        all,
    );
    t.scene(
        "hints do not concern policy Local",
        |s| {
            s.expose();
            s.policies(Local, Local);
            s.own.zone = Some("b".into());
            s.endpoints(&["here rs zone=a", "there rs zone=b"]);
        },
        "
        pod      -> cluster:80/tcp  = here
        stranger -> balancer:80/tcp = here
        pod      -> balancer:80/tcp = there
        node     -> node:30080/tcp  = there+masq
        ",
    );
    t.scene(
        "hints concern external traffic of policy Cluster",
        |s| {
            s.expose();
            s.own.zone = Some("b".into());
            s.endpoints(&["here rs zone=a", "there rs zone=b"]);
        },
        "
        stranger -> node:30080/tcp  = there+masq
        stranger -> balancer:80/tcp = there+masq
        ",
    );
}
