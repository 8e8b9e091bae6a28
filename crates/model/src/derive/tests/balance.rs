//! How a Service chooses among its backends.

use super::*;
use crate::inputs::Algorithm::{self, Maglev, Random};

#[test]
fn what_a_service_asks_for_goes_before_the_default_of_the_node() {
    for (asked, exposed, default, carries, expected, said) in [
        (None, true, Random, true, Random, false),
        (None, true, Maglev, true, Maglev, false),
        // Only sockets go to a cluster IP, as a rule: no table for that.
        (None, false, Maglev, true, Random, false),
        (Some(Maglev), false, Random, true, Maglev, false),
        (Some(Random), true, Maglev, true, Random, false),
        // The mode does not know it: the rules say what is asked for, the finding what is done.
        (Some(Maglev), true, Random, false, Maglev, true),
        (None, true, Maglev, false, Maglev, false),
    ] {
        let node = NodeSettings {
            algorithm: default,
            carries_maglev: carries,
            ..settings()
        };
        let web = service(|service| {
            service.algorithm = asked;
            service.ports[0].node_port = exposed.then_some(30080);
        });
        let mut inputs = Inputs::default();
        let key = web.key.clone();
        inputs.apply(InputEvent::Service(key.clone(), Some(web)));
        let (rules, diagnostics) = derive_service(&inputs, &key, &node);
        let case = format!("{asked:?} {exposed} {default:?} {carries}");
        assert_eq!(rules.map(|rules| rules.algorithm), Some(expected), "{case}");
        let texts: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        let about = "default/web: metadata.annotations[seaway.dev/load-balancer-algorithm]: this node's mode cannot";
        assert_eq!(
            texts.iter().any(|text| text.starts_with(about)),
            said,
            "{case}: {texts:?}"
        );
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for algorithm in [Random, Maglev] {
        assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
    }
    assert_eq!(Algorithm::parse("Maglev"), None);
}
