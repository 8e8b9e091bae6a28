use proptest::prelude::*;
use seaway_kernel::conntrack::Flow;
use seaway_model::testing::{self, plain};
use seaway_model::{InputEvent, Inputs, ServicePort, derive_all};

use super::super::stale::tests::{flow, flows, resolve};
use super::super::stale::{is_stale, stale};
use super::*;

fn node() -> NodeAddresses {
    NodeAddresses::new(testing::node_addresses(), None)
}

fn is_listed(frontends: &Frontends, due: &Due, flow: &Flow) -> bool {
    let listings = frontends.listings(due);
    listings.iter().any(|filter| filter.matches(flow))
}

/// Whether the rules of now let such a flow come into being.
fn can_begin(frontends: &Frontends, flow: &Flow) -> bool {
    let (to, answers) = (flow.original.destination, flow.reply.source);
    match frontends.find(to, &node()) {
        Some(Found::Live(endpoints)) => endpoints.contains(&answers),
        Some(Found::Gone(_)) | None => to == answers,
    }
}

proptest! {
    /// Flows come into being under the rules of their time, changes come in any batches, and looks at any time: every
    /// flow that is stale is among those looked at.
    #[test]
    fn no_flow_becomes_stale_unnoticed(
        events in testing::events(24),
        flows in flows(),
        batch in 1..5_usize,
        look in prop::collection::vec(any::<bool>(), 24),
    ) {
        let node = node();
        let candidates = resolve(&flows, &events);
        let mut flows = BTreeSet::new();
        let (mut inputs, mut desired) = (Inputs::default(), Desired::default());
        let mut frontends = Frontends::default();
        for (events, look) in events.chunks(batch).zip(look) {
            let begins = candidates.iter().filter(|flow| can_begin(&frontends, flow));
            flows.extend(begins.copied());
            let mut touched = BTreeSet::new();
            for event in events {
                touched.extend(inputs.apply(event.clone()));
            }
            desired.update(&inputs, &touched, &testing::settings());
            frontends.update(&desired, &Change::Services(touched));
            if look {
                let due = frontends.take_due();
                for flow in flows.iter().filter(|flow| is_stale(flow, &frontends, &node)) {
                    prop_assert!(is_listed(&frontends, &due, flow), "{:?}: {:?}", flow, due);
                }
                flows.retain(|flow| !is_stale(flow, &frontends, &node));
                frontends.looked_at(&due);
            }
        }
        // In the end all is as if it had been there at once.
        let due = frontends.take_due();
        frontends.looked_at(&due);
        let mut at_once = Frontends::default();
        at_once.update(&derive_all(&inputs, &testing::settings()).0, &Change::Full);
        prop_assert_eq!(&frontends.claims, &at_once.claims);
        prop_assert!(frontends.gone.is_empty());
    }
}

/// A UDP Service with these endpoints, as the events that make it.
fn service(name: &str, cluster_ip: [u8; 4], endpoints: &[u8]) -> Vec<InputEvent> {
    let port = ServicePort {
        node_port: Some(30_053),
        ..plain::port("", Protocol::Udp, 53)
    };
    let service = plain::service(name, vec![cluster_ip.into()], vec![port]);
    let endpoint = |last: &u8| plain::endpoint([10, 244, 1, *last].into(), "rs", None);
    let endpoints = endpoints.iter().map(endpoint).collect();
    let target = plain::target("", Protocol::Udp, 53);
    let slice = plain::slice(name, name, Family::V4, target, endpoints);
    vec![
        InputEvent::Service(service.key.clone(), Some(service)),
        InputEvent::Slice(slice.key.clone(), Some(slice)),
    ]
}

/// A cluster to which changes are applied one after the other.
#[derive(Default)]
struct Cluster {
    inputs: Inputs,
    desired: Desired,
    frontends: Frontends,
}

impl Cluster {
    fn apply(&mut self, events: Vec<InputEvent>) {
        let mut touched = BTreeSet::new();
        for event in events {
            touched.extend(self.inputs.apply(event));
        }
        self.desired
            .update(&self.inputs, &touched, &testing::settings());
        self.frontends
            .update(&self.desired, &Change::Services(touched));
    }

    /// The destinations to be looked at.
    fn due(&mut self) -> Vec<String> {
        let due = self.frontends.take_due();
        let listings = self.frontends.listings(&due);
        self.frontends.looked_at(&due);
        let text = |f: &Filter| {
            let ip = f.destination.map_or("*".into(), |ip| ip.to_string());
            let port = f.destination_port.map_or("*".into(), |p| p.to_string());
            format!("{ip}:{port}")
        };
        listings.iter().map(text).collect()
    }
}

const NOTHING: [&str; 0] = [];
const BOTH: [&str; 2] = ["10.96.0.1:53", "*:30053"];

#[test]
fn only_what_can_strand_a_flow_is_looked_at() {
    let ip = [10, 96, 0, 1];
    let mut cluster = Cluster::default();
    cluster.apply(service("a", ip, &[]));
    assert_eq!(cluster.due(), NOTHING, "a new frontend without endpoints");
    cluster.apply(service("a", ip, &[2]));
    assert_eq!(cluster.due(), BOTH, "the first endpoint");
    cluster.apply(service("a", ip, &[2, 3]));
    assert_eq!(cluster.due(), NOTHING, "one more endpoint");
    cluster.apply(service("a", ip, &[3]));
    assert_eq!(cluster.due(), BOTH, "an endpoint less");
    cluster.apply(service("a", ip, &[]));
    assert_eq!(cluster.due(), BOTH, "the last endpoint");
    cluster.apply(service("a", ip, &[3]));
    cluster.due();
    cluster.apply(vec![InputEvent::Service(
        ObjectKey::new("default", "a"),
        None,
    )]);
    assert_eq!(cluster.due(), BOTH, "the Service is gone");
    cluster.apply(service("a", ip, &[3]));
    assert_eq!(cluster.due(), BOTH, "and back");
}

#[test]
fn many_changes_are_one_listing() {
    let mut cluster = Cluster::default();
    for last in 1..=20 {
        cluster.apply(service(&format!("s{last}"), [10, 96, 0, last], &[last]));
    }
    assert_eq!(cluster.due(), ["*:*"]);
    cluster
        .frontends
        .update(&cluster.desired.clone(), &Change::Full);
    assert_eq!(cluster.due(), ["*:*"]);
    assert_eq!(cluster.due(), NOTHING);
}

/// The tables of TCP Services cost nothing.
#[test]
fn without_udp_there_is_nothing_to_do() {
    let mut frontends = Frontends::default();
    frontends.update(&Desired::default(), &Change::Full);
    assert_eq!(frontends.take_due(), Due::Nothing);
}

/// The flows of the Service that has a frontend are not measured by the endpoints of one that wants it too.
#[test]
fn of_two_services_at_one_frontend_the_smaller_key_counts() {
    let ip = [10, 96, 0, 1];
    let at = |last| {
        flow(
            "10.96.0.1:53".parse().unwrap(),
            ([10, 244, 1, last], 53).into(),
        )
    };
    let mut cluster = Cluster::default();
    cluster.apply(service("b", ip, &[3]));
    cluster.due();
    assert_eq!(stale(&[at(2), at(3)], &cluster.frontends, &node()), [at(2)]);
    cluster.apply(service("a", ip, &[2]));
    assert_eq!(cluster.due(), BOTH);
    assert_eq!(stale(&[at(2), at(3)], &cluster.frontends, &node()), [at(3)]);
    cluster.apply(service("b", ip, &[]));
    assert_eq!(cluster.due(), NOTHING);
    assert_eq!(stale(&[at(2), at(3)], &cluster.frontends, &node()), [at(3)]);
}

#[test]
fn after_a_failure_the_same_is_due_and_what_came_since() {
    let mut cluster = Cluster::default();
    cluster.apply(service("a", [10, 96, 0, 1], &[2]));
    let failed = cluster.frontends.take_due();
    cluster.apply(service("b", [10, 96, 0, 2], &[3]));
    cluster.frontends.put_back(failed);
    assert_eq!(cluster.due(), ["10.96.0.1:53", "10.96.0.2:53", "*:30053"]);
    cluster.frontends.put_back(Due::Everything);
    cluster.frontends.put_back(Due::Nothing);
    assert_eq!(cluster.due(), ["*:*"]);
}

/// A deleted Service's flows are only those to its endpoints; once looked for they are nobody's any more.
#[test]
fn a_frontend_that_is_gone_is_remembered_until_its_flows_were_looked_for() {
    let mut cluster = Cluster::default();
    cluster.apply(service("a", [10, 96, 0, 1], &[2]));
    cluster.due();
    cluster.apply(vec![InputEvent::Service(
        ObjectKey::new("default", "a"),
        None,
    )]);
    let to = |text: &str| flow("10.96.0.1:53".parse().unwrap(), text.parse().unwrap());
    let flows = [to("10.244.1.2:53"), to("10.244.1.7:53"), to("10.96.0.1:53")];
    assert_eq!(stale(&flows, &cluster.frontends, &node()), flows[..1]);
    cluster.due();
    assert_eq!(stale(&flows, &cluster.frontends, &node()), []);
}
