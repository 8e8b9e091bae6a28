use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use seaway_model::{Inputs, NodeContext, derive_all, outcomes, testing};

use super::*;
use crate::changes::Changes;
use crate::iptables::walk::walk;
use crate::iptables::{parse, render, transaction};

mod image;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn settings(family: Family, node: &NodeContext) -> Settings {
    Settings {
        masquerade_all: node.masquerade_all,
        ..Settings::new(family, &node.detect_local)
            .node_ports_on(node.node_port_addresses.as_deref())
    }
}

fn full(desired: &Desired, settings: &Settings) -> Image {
    let mut image = Image::default();
    let plan = image.plan(desired, &Change::Full, settings);
    image.learn(plan);
    image
}

proptest! {
    /// The generated rules do to every packet what the specification says, each backend as likely as any other.
    #[test]
    fn rules_do_what_the_oracle_says(
        inputs in testing::inputs(),
        node in testing::node_context(),
        packets in vec(testing::packet(), 40),
        unknown_ports in select(&Table::ALL),
    ) {
        let (desired, _) = derive_all(&inputs, &testing::settings());
        for family in FAMILIES {
            let settings = Settings { unknown_ports, ..settings(family, &node) };
            let chains = full(&desired, &settings).chains;
            for packet in packets.iter().filter(|p| Family::of(p.source) == family) {
                let allowed = outcomes(&desired, packet, &node);
                let found = walk(&chains, packet, &node).unwrap();
                let share = 1.0 / allowed.len() as f64;
                prop_assert_eq!(
                    found.keys().copied().collect::<seaway_model::Outcomes>(),
                    allowed,
                    "{:?}", packet
                );
                for (outcome, likelihood) in found {
                    prop_assert!((likelihood - share).abs() < 1e-6, "{outcome:?}: {likelihood}");
                }
            }
        }
    }

    /// Following changes one by one ends where a full sync would, in the image and in the kernel as simulated by
    /// executing the text of each transaction.
    #[test]
    fn following_changes_equals_a_full_sync(
        events in testing::events(30),
        node in testing::node_context(),
        unknown_ports in select(&Table::ALL),
    ) {
        for family in FAMILIES {
            let settings = Settings { unknown_ports, ..settings(family, &node) };
            let mut inputs = Inputs::default();
            let mut desired = Desired::default();
            let mut image = full(&desired, &settings);
            let mut kernel = image.chains.clone();
            for event in &events {
                let keys = inputs.apply(event.clone());
                desired.update(&inputs, &keys, &testing::settings());
                let plan = image.plan(&desired, &Change::Services(keys), &settings);
                transaction::tests::execute(&mut kernel, &plan.transaction, family);
                prop_assert!(!plan.corrected);
                image.learn(plan);
                prop_assert_eq!(&kernel, &image.chains);
                // What production relies on: the digests of a partial sync are those of a full build.
                prop_assert_eq!(image.digest(), full(&desired, &settings).digest());
            }
            let fresh = full(&desired, &settings);
            prop_assert_eq!(&image, &fresh);
            let again = image.plan(&desired, &Change::Full, &settings);
            prop_assert!(again.transaction.is_empty(), "{}", again.transaction);
        }
    }

    /// Whatever an earlier run left behind, a full plan ends at the same rules.
    #[test]
    fn any_leftovers_are_brought_to_the_desired_state(
        before in testing::inputs(),
        after in testing::inputs(),
        node in testing::node_context(),
    ) {
        let family = Family::V4;
        let settings = settings(family, &node);
        let (before, _) = derive_all(&before, &testing::settings());
        let (after, _) = derive_all(&after, &testing::settings());
        let mut kernel = full(&before, &Settings::new(family, &DetectLocal::None)).chains;
        let image = Image::observed(kernel.clone());
        let plan = image.plan(&after, &Change::Full, &settings);
        transaction::tests::execute(&mut kernel, &plan.transaction, family);
        prop_assert_eq!(kernel, full(&after, &settings).chains);
    }

    /// Everything that is generated survives being written and read.
    #[test]
    fn parse_is_the_inverse_of_render(
        inputs in testing::inputs(),
        node in testing::node_context(),
    ) {
        let (desired, _) = derive_all(&inputs, &testing::settings());
        for family in FAMILIES {
            let chains = full(&desired, &settings(family, &node)).chains;
            for rule in chains.values().flat_map(|rules| rules.iter()) {
                let text = render::rule(rule, family);
                prop_assert_eq!(&parse::rule(&text, family), rule, "{}", text);
            }
        }
    }
}

/// One Service with an endpoint for each of `hosts`.
fn service(name: &str, last: u8, hosts: &[u8]) -> Vec<seaway_model::InputEvent> {
    use seaway_model::{InputEvent, Protocol, ServicePort};
    use testing::plain;
    let port = ServicePort {
        // Few, so that the snapshots stay short.
        node_port: [7, 201].contains(&last).then(|| 30_000 + u16::from(last)),
        ..plain::port("http", Protocol::Tcp, 80)
    };
    let service = plain::service(name, vec![[10, 96, 0, last].into()], vec![port]);
    let endpoint = |host: &u8| plain::endpoint([10, 244, 1, *host].into(), "rs", None);
    let endpoints = hosts.iter().map(endpoint).collect();
    let target = plain::target("http", Protocol::Tcp, 8080);
    let slice = plain::slice(name, name, Family::V4, target, endpoints);
    vec![
        InputEvent::Service(service.key.clone(), Some(service)),
        InputEvent::Slice(slice.key.clone(), Some(slice)),
    ]
}

/// A node with 200 Services, as an image and what can change it.
fn two_hundred() -> (Inputs, Desired, Image, Settings) {
    let mut inputs = Inputs::default();
    for n in 1..=200 {
        for event in service(&format!("svc-{n}"), n, &[2, 3]) {
            inputs.apply(event);
        }
    }
    let (desired, _) = derive_all(&inputs, &testing::settings());
    let settings = Settings::new(
        Family::V4,
        &DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]),
    );
    let image = full(&desired, &settings);
    (inputs, desired, image, settings)
}

fn check_change(events: Vec<seaway_model::InputEvent>, expected: &expect_test::Expect) {
    let (mut inputs, mut desired, image, settings) = two_hundred();
    let mut keys = BTreeSet::new();
    for event in events {
        keys.extend(inputs.apply(event));
    }
    desired.update(&inputs, &keys, &testing::settings());
    let plan = image.plan(&desired, &Change::Services(keys), &settings);
    expected.assert_eq(plan.transaction.as_str());
}

#[test]
fn a_changed_endpoint_rewrites_one_chain() {
    check_change(
        service("svc-7", 7, &[2, 4]),
        &expect_test::expect![[r#"
            *nat
            -R SEAWAY-SVC-2GHMNQGBZHZWV3CX 2 -p tcp -j DNAT --to-destination 10.244.1.4:8080
            COMMIT
        "#]],
    );
}

#[test]
fn many_endpoints_get_a_chain_and_few_do_not() {
    let (mut inputs, mut desired, mut image, settings) = two_hundred();
    let hosts: Vec<u8> = (2..=10).collect();
    let own = |image: &Image| {
        let names = image.chains.keys().map(|id| id.name.as_str());
        names.filter(|name| name.starts_with("SEAWAY-SVC-")).count()
    };
    // The Services with a node port.
    let others = own(&image);
    for (count, chains) in [(8, 0), (9, 1), (8, 0), (0, 0), (9, 1), (0, 0)] {
        let events = service("svc-8", 8, &hosts[..count]).into_iter();
        let keys = events.flat_map(|event| inputs.apply(event)).collect();
        desired.update(&inputs, &keys, &testing::settings());
        let plan = image.plan(&desired, &Change::Services(keys), &settings);
        assert!(!plan.corrected);
        image.learn(plan);
        assert_eq!(own(&image) - others, chains, "{count} endpoints");
        assert_eq!(image, full(&desired, &settings));
    }
}

#[test]
fn a_service_that_loses_its_endpoints_rewrites_one_chain() {
    check_change(
        service("svc-7", 7, &[]),
        &expect_test::expect![[r#"
            *nat
            :SEAWAY-SVC-2GHMNQGBZHZWV3CX - [0:0]
            -A SEAWAY-SVC-2GHMNQGBZHZWV3CX -m comment --comment "default/svc-7:http/tcp" -j SEAWAY-REJECT
            COMMIT
        "#]],
    );
}

#[test]
fn a_new_service_rewrites_its_leaves() {
    check_change(
        service("svc-new", 201, &[2]),
        &expect_test::expect![[r#"
            *filter
            :SEAWAY-CIPS-9C - [0:0]
            -A SEAWAY-CIPS-9 -d 0.0.0.192/0.0.0.240 -j SEAWAY-CIPS-9C
            -A SEAWAY-CIPS-9C -d 10.96.0.201/32 -j SEAWAY-UNKNOWN-PORT
            COMMIT
            *nat
            :SEAWAY-EXT-QY6VSKF5GDGMF2BR - [0:0]
            :SEAWAY-NPS-TCP-30080 - [0:0]
            :SEAWAY-SVC-QY6VSKF5GDGMF2BR - [0:0]
            :SEAWAY-SVCS-9C - [0:0]
            -A SEAWAY-EXT-QY6VSKF5GDGMF2BR -m comment --comment "default/svc-new:http/tcp" -j MARK --set-xmark 0x10000/0x10000
            -A SEAWAY-EXT-QY6VSKF5GDGMF2BR -j SEAWAY-SVC-QY6VSKF5GDGMF2BR
            -A SEAWAY-NODEPORTS -p tcp -m tcp --dport 30080:30207 -j SEAWAY-NPS-TCP-30080
            -A SEAWAY-NPS-TCP-30080 -p tcp -m comment --comment "default/svc-new:http/tcp" -m tcp --dport 30201 -j SEAWAY-EXT-QY6VSKF5GDGMF2BR
            -A SEAWAY-SVC-QY6VSKF5GDGMF2BR -p tcp -m comment --comment "default/svc-new:http/tcp" -j DNAT --to-destination 10.244.1.2:8080
            -A SEAWAY-SVCS-9 -d 0.0.0.192/0.0.0.240 -j SEAWAY-SVCS-9C
            -A SEAWAY-SVCS-9C -d 10.96.0.201/32 -p tcp -m comment --comment "default/svc-new:http/tcp" -m tcp --dport 80 -j SEAWAY-SVC-QY6VSKF5GDGMF2BR
            COMMIT
        "#]],
    );
}

#[test]
fn a_deleted_service_leaves_nothing() {
    use seaway_model::InputEvent;
    let key = ObjectKey::new("default", "svc-7");
    check_change(
        vec![
            InputEvent::Service(key.clone(), None),
            InputEvent::Slice(key, None),
        ],
        &expect_test::expect![[r#"
            *filter
            :SEAWAY-CIPS-70 - [0:0]
            -D SEAWAY-CIPS-7 1
            -X SEAWAY-CIPS-70
            COMMIT
            *nat
            :SEAWAY-NODEPORTS - [0:0]
            :SEAWAY-EXT-2GHMNQGBZHZWV3CX - [0:0]
            :SEAWAY-NPS-TCP-29952 - [0:0]
            :SEAWAY-SVC-2GHMNQGBZHZWV3CX - [0:0]
            :SEAWAY-SVCS-70 - [0:0]
            -D SEAWAY-SVCS-7 1
            -X SEAWAY-EXT-2GHMNQGBZHZWV3CX
            -X SEAWAY-NPS-TCP-29952
            -X SEAWAY-SVC-2GHMNQGBZHZWV3CX
            -X SEAWAY-SVCS-70
            COMMIT
        "#]],
    );
}

#[test]
fn dispatch_does_not_grow_with_the_number_of_services() {
    let (_, _, image, _) = two_hundred();
    let longest = image
        .chains
        .iter()
        .filter(|(id, _)| {
            let name = id.name.as_str();
            [
                "SEAWAY-SVCS-",
                "SEAWAY-CIPS-",
                "SEAWAY-SERVICES",
                "SEAWAY-NODEPORTS",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        })
        .map(|(_, rules)| rules.len())
        .max();
    // Sixteen ways down, the mark before and behind them, and the node ports.
    assert_eq!(longest, Some(19));
}

#[test]
fn a_change_before_the_first_full_plan_is_taken_as_full() {
    let (_, desired, image, settings) = two_hundred();
    let empty = Image::default();
    let plan = empty.plan(&desired, &Change::Services(BTreeSet::new()), &settings);
    let mut learned = empty;
    learned.learn(plan);
    assert_eq!(learned, image);
}

#[test]
fn of_two_services_at_one_frontend_the_smaller_key_has_it() {
    use seaway_model::{InputEvent, Origin, Outcome, Packet, Protocol};
    let node = NodeContext {
        addresses: vec![[192, 168, 1, 1].into()],
        ..NodeContext::default()
    };
    let settings = settings(Family::V4, &node);
    // The steps (a Service with one endpoint, or gone), and the last byte of who then answers.
    for (steps, expected) in [
        (&[("a", Some(2)), ("b", Some(3))][..], 2),
        (&[("b", Some(3)), ("a", Some(2))], 2),
        (&[("b", Some(3)), ("a", Some(2)), ("a", None)], 3),
        (&[("a", Some(2)), ("b", Some(3)), ("b", None)], 2),
        (
            &[("b", Some(3)), ("a", Some(2)), ("a", None), ("a", Some(2))],
            2,
        ),
    ] {
        let mut inputs = Inputs::default();
        let mut desired = Desired::default();
        let mut image = full(&desired, &settings);
        for (name, host) in steps {
            let events = match host {
                Some(host) => service(name, 7, &[*host]),
                None => vec![InputEvent::Service(ObjectKey::new("default", *name), None)],
            };
            let keys = events.into_iter().flat_map(|e| inputs.apply(e)).collect();
            desired.update(&inputs, &keys, &testing::settings());
            let plan = image.plan(&desired, &Change::Services(keys), &settings);
            image.learn(plan);
        }
        for destination in ["10.96.0.7:80", "192.168.1.1:30007"] {
            let packet = Packet {
                source: [192, 168, 1, 9].into(),
                destination: destination.parse().unwrap(),
                protocol: Protocol::Tcp,
                origin: Origin::External,
            };
            let found: Vec<Outcome> = walk(&image.chains, &packet, &node)
                .unwrap()
                .into_keys()
                .collect();
            let allowed: Vec<Outcome> = outcomes(&desired, &packet, &node).into_iter().collect();
            assert_eq!(found, allowed, "{steps:?}");
            let answers = format!("10.244.1.{expected}:8080");
            assert!(
                format!("{found:?}").contains(&answers),
                "{steps:?} at {destination}: {found:?}"
            );
        }
    }
}

#[test]
fn changes_are_those_of_the_chains_that_differ() {
    let (_, desired, mut image, settings) = two_hundred();
    let full = image.plan(&desired, &Change::Full, &settings);
    assert_eq!(image.changes(&full).count(), 0);
    let shown = |image: &Image| -> Vec<String> {
        let plan = image.plan(&desired, &Change::Full, &settings);
        let tables = image.changes(&plan).collect();
        let changes = Changes {
            tables,
            ..Changes::default()
        };
        changes.to_string().lines().map(str::to_owned).collect()
    };
    let prerouting = ChainId::nat(&ChainName::new("PREROUTING"));
    let jumps = image.chains.remove(&prerouting).unwrap();
    let stranger = ChainId::nat(&ChainName::new("SEAWAY-NOBODYS"));
    image.chains.insert(stranger, jumps.clone());
    let rule = render::rule(&jumps[0], settings.family);
    assert_eq!(
        shown(&image),
        [
            "ipv4 nat PREROUTING",
            &format!("  + {rule}"),
            "ipv4 nat SEAWAY-NOBODYS, which goes",
            &format!("  - {rule}"),
        ]
    );
}
