//! The Service of the API server keeps its last endpoints.

use super::*;
use crate::derive::keep_lifeline;

/// The rules of a Service with these endpoints.
fn rules(endpoints: &[&str]) -> ServiceRules {
    let endpoints = endpoints
        .iter()
        .map(|ip| endpoint(ip, "rs", "n1"))
        .collect();
    derive(service(|_| {}), vec![slice("web-1", 8080, endpoints)]).0
}

fn keep(name: (&str, &str), before: Option<&ServiceRules>, now: &[&str]) -> (ServiceRules, bool) {
    let mut now = rules(now);
    let said = keep_lifeline(&ObjectKey::new(name.0, name.1), before, &mut now);
    (now, said.is_some())
}

#[test]
fn only_the_last_endpoints_of_the_api_server_are_kept() {
    let two = rules(&["10.244.1.2", "10.244.1.3"]);
    let none = rules(&[]);
    let api = ("default", "kubernetes");
    // Step by step, the last ones that there were stay for as long as there are no others.
    assert_eq!(keep(api, None, &[]), (none.clone(), false));
    assert_eq!(keep(api, Some(&none), &[]), (none.clone(), false));
    let (kept, said) = keep(api, Some(&two), &[]);
    assert_eq!((&kept, said), (&two, true));
    assert_eq!(keep(api, Some(&kept), &[]), (two.clone(), true));
    let one = rules(&["10.244.1.9"]);
    assert_eq!(keep(api, Some(&kept), &["10.244.1.9"]), (one, false));
    for other in [("default", "web"), ("kube-system", "kubernetes")] {
        assert_eq!(
            keep(other, Some(&two), &[]),
            (none.clone(), false),
            "{other:?}"
        );
    }
}

#[test]
fn a_port_gets_what_it_had_itself() {
    let mut before = rules(&["10.244.1.2"]);
    before.ports[0].port_name = "other".into();
    let api = ("default", "kubernetes");
    assert_eq!(keep(api, Some(&before), &[]), (rules(&[]), false));
}
