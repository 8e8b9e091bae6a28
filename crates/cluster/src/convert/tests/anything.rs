//! Objects that no API server would store: converted, never refused, and what is left of them can be derived.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use seaway_model::{Inputs, NodeSettings, derive_all};

use super::*;

/// Every field that is read, and some that are not.
const FIELDS: &str = "metadata name namespace labels annotations deletionTimestamp spec status type clusterIP clusterIPs \
    ports port nodePort protocol targetPort internalTrafficPolicy externalTrafficPolicy sessionAffinity \
    sessionAffinityConfig clientIP timeoutSeconds externalIPs loadBalancerSourceRanges healthCheckNodePort loadBalancer \
    ingress ip ipMode hostname addressType endpoints addresses conditions ready serving terminating nodeName hints \
    forZones forNodes podCIDR podCIDRs taints key address kubernetes.io/service-name service.kubernetes.io/headless \
    topology.kubernetes.io/zone endpoints.kubernetes.io/last-change-trigger-time seaway.dev/load-balancer-algorithm";

const TEXTS: [&str; 25] = [
    "maglev",
    "",
    "None",
    "web",
    "n1",
    "10.96.0.1",
    "010.096.0.001",
    "fd00::1",
    "::ffff:10.0.0.1",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.1",
    "10.0.0.0/8",
    " 10.0.0.0/8 ",
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/99",
    "TCP",
    "tcp",
    "Local",
    "LoadBalancer",
    "ClientIP",
    "IPv4",
    "IPv6",
    "2026-01-01T00:00:00Z",
];

const NUMBERS: [i64; 9] = [i64::MIN, -1, 0, 1, 80, 65_535, 65_536, 86_401, i64::MAX];

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => select(NUMBERS.to_vec()).prop_map(Value::from),
        6 => select(TEXTS.to_vec()).prop_map(Value::from),
    ];
    let field = select(FIELDS.split_whitespace().collect::<Vec<_>>());
    leaf.prop_recursive(6, 96, 6, move |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => vec((field.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

/// An object of the right shape with a few parts replaced by anything.
fn nearly_right() -> impl Strategy<Value = Value> {
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30080}], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "externalTrafficPolicy": "Local",
            "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": ["192.0.2.0/24"], "healthCheckNodePort": 31000,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}},
    });
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "a", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": true}, "nodeName": "n1",
            "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]}}],
    });
    let node = json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": ["10.244.1.0/24"], "taints": [{"key": "a"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
    });
    let replaced = vec((any::<prop::sample::Index>(), anything()), 0..4);
    (select(vec![service, slice, node]), replaced).prop_map(|(mut object, replaced)| {
        for (index, value) in replaced {
            let count = parts(&mut object, &mut |_| ());
            let wanted = index.index(count);
            let mut n = 0;
            parts(&mut object, &mut |part| {
                if n == wanted {
                    *part = value.clone();
                }
                n += 1;
            });
        }
        object
    })
}

/// Visits every value in `value`, itself last, and counts them.
fn parts(value: &mut Value, visit: &mut impl FnMut(&mut Value)) -> usize {
    let mut count = 1;
    match value {
        Value::Array(items) => {
            for item in items {
                count += parts(item, visit);
            }
        }
        Value::Object(fields) => {
            for (_, field) in fields.iter_mut() {
                count += parts(field, visit);
            }
        }
        _ => {}
    }
    visit(value);
    count
}

/// The object as each of the kinds that it can be read as.
fn objects(value: &Value) -> Vec<Object> {
    let mut objects = Vec::new();
    objects.extend(serde_json::from_value(value.clone()).map(Object::Service));
    objects.extend(serde_json::from_value(value.clone()).map(Object::Slice));
    objects.extend(serde_json::from_value(value.clone()).map(Object::Node));
    objects
}

proptest! {
    #[test]
    fn is_converted_and_derived(values in vec(prop_oneof![anything(), nearly_right()], 1..4)) {
        let mut inputs = Inputs::default();
        let mut names = Interner::default();
        for object in values.iter().flat_map(objects) {
            let done = convert(&object, &mut names);
            for diagnostic in &done.diagnostics {
                prop_assert!(!diagnostic.field.is_empty() && !diagnostic.consequence.is_empty());
            }
            inputs.apply(done.event);
        }
        let (desired, _) = derive_all(&inputs, &NodeSettings::new("n1"));
        for rule in desired.services.values().flat_map(|service| &service.ports) {
            for frontend in &rule.frontends {
                prop_assert!(frontend.port != 0 && frontend.addr.family() == rule.family);
            }
            for backend in rule.cluster.iter().chain(&rule.local) {
                prop_assert!(backend.addr.port() != 0 && Family::of(backend.addr.ip()) == rule.family);
            }
        }
    }
}
