use super::*;
use crate::inputs::InputEvent;
use crate::testing::{NODE, scenes};

const KINDS: [FrontendKind; 4] = [
    FrontendKind::ClusterIp,
    FrontendKind::NodePort,
    FrontendKind::ExternalIp,
    FrontendKind::LoadBalancer,
];

const POLICIES: [TrafficPolicy; 2] = [TrafficPolicy::Cluster, TrafficPolicy::Local];

fn rule(kinds: &[FrontendKind], internal: TrafficPolicy, external: TrafficPolicy) -> PortRule {
    let frontend = |&kind| Frontend {
        addr: FrontendAddr::AnyNodeAddress(Family::V4),
        port: 80,
        protocol: Protocol::Tcp,
        kind,
    };
    PortRule {
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
        frontends: kinds.iter().map(frontend).collect(),
        cluster: Vec::new(),
        local: Vec::new(),
        lingering: Vec::new(),
        any_endpoints: false,
        internal_policy: internal,
        external_policy: external,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

/// A data plane that programs only what is used must miss nothing, and nothing more is worth its cost.
#[test]
fn a_set_is_used_exactly_if_some_client_meets_its_policy() {
    for mask in 1..1_u32 << KINDS.len() {
        let kinds: Vec<_> = (0..KINDS.len())
            .filter(|i| mask & 1 << i != 0)
            .map(|i| KINDS[i])
            .collect();
        for (internal, external) in POLICIES.map(|i| POLICIES.map(|e| (i, e))).concat() {
            let rule = rule(&kinds, internal, external);
            let meets = |policy| {
                let mut met = kinds.iter().flat_map(|&kind| {
                    [Client::Internal, Client::External].map(|who| rule.policy_for(kind, who))
                });
                met.any(|met| met == policy)
            };
            let case = format!("{kinds:?}, internal {internal:?}, external {external:?}");
            assert_eq!(rule.uses_cluster(), meets(TrafficPolicy::Cluster), "{case}");
            assert_eq!(rule.uses_local(), meets(TrafficPolicy::Local), "{case}");
            assert_eq!(
                rule.is_external(),
                kinds.iter().any(|kind| *kind != FrontendKind::ClusterIp),
                "{case}"
            );
        }
    }
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let settings = NodeSettings::new(NODE);
    let mut inputs = Inputs::default();
    let plain = scenes::scenes().swap_remove(0).inputs;
    let (_, web) = plain.services.into_iter().next().unwrap();
    let named = |name: &str| ObjectKey::new("default", name);
    let put = |inputs: &mut Inputs, name: &str, port: Option<u16>| {
        let service = port.map(|port| {
            let mut service = web.clone();
            service.key = named(name);
            service.ports[0].port = port;
            service
        });
        inputs.apply(InputEvent::Service(named(name), service));
    };
    let ports = |desired: &Desired| -> Vec<(String, u16)> {
        let port = |key| desired.services[key].ports[0].frontends[0].port;
        let keys = desired.keys();
        keys.iter()
            .map(|key| (key.name().to_owned(), port(key)))
            .collect()
    };

    put(&mut inputs, "api", Some(80));
    put(&mut inputs, "web", Some(80));
    let mut desired = Desired::default();
    desired.update(&inputs, inputs.services.keys(), &settings);
    assert_eq!(
        ports(&desired),
        [("api".to_owned(), 80), ("web".to_owned(), 80)]
    );

    put(&mut inputs, "api", Some(81));
    put(&mut inputs, "web", Some(81));
    desired.update(&inputs, [&named("web")], &settings);
    assert_eq!(
        ports(&desired),
        [("api".to_owned(), 80), ("web".to_owned(), 81)]
    );

    put(&mut inputs, "web", None);
    put(&mut inputs, "api", None);
    desired.update(&inputs, [&named("web"), &named("unheard-of")], &settings);
    assert_eq!(ports(&desired), [("api".to_owned(), 80)]);
}
