//! What a source could not read is said with the Service that it concerns.

use super::*;
use crate::inputs::Kind;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn finding(name: &str) -> Diagnostic {
    Diagnostic {
        object: key(name),
        field: "spec.unreadable".to_owned(),
        consequence: "left out".to_owned(),
    }
}

/// A step, the Services that it touches, and what is then said of `web`.
fn check(inputs: &mut Inputs, event: InputEvent, touched: &str, said: &[&str]) {
    let step = format!("{event:?}");
    let keys = inputs.apply(event);
    let names: Vec<String> = keys.iter().map(|key| key.name().to_owned()).collect();
    assert_eq!(names.join(" "), touched, "{step}");
    let (_, diagnostics) = derive_service(inputs, &key("web"), &settings());
    let expected: Vec<Diagnostic> = said.iter().map(|name| finding(name)).collect();
    assert_eq!(diagnostics, expected, "{step}");
}

#[test]
fn findings_follow_their_object() {
    let mut inputs = Inputs::default();
    let inputs = &mut inputs;
    let service = service(|_| {});
    let mut one = slice("web-1", 8080, vec![endpoint("10.244.1.2", "rs", "n1")]);
    let found =
        |kind, name: &str, count| InputEvent::Findings(kind, key(name), vec![finding(name); count]);

    check(inputs, found(Kind::Slice, "web-1", 1), "web-1", &[]);
    let comes = InputEvent::Service(key("web"), Some(service));
    check(inputs, comes, "web", &[]);
    // What counted for itself counts for the Service from now on.
    let comes = InputEvent::Slice(key("web-1"), Some(one.clone()));
    check(inputs, comes, "web web-1", &["web-1"]);
    let own = found(Kind::Service, "web", 1);
    check(inputs, own.clone(), "web", &["web", "web-1"]);
    check(inputs, own, "", &["web", "web-1"]);
    check(
        inputs,
        found(Kind::Slice, "web-1", 2),
        "web",
        &["web", "web-1", "web-1"],
    );
    one.service = one.key.neighbour("api");
    let moves = InputEvent::Slice(key("web-1"), Some(one));
    check(inputs, moves, "api web web-1", &["web"]);
    check(inputs, found(Kind::Slice, "web-1", 0), "api", &["web"]);
    check(inputs, found(Kind::Slice, "web-1", 0), "", &["web"]);
    // A slice of the same name is another object.
    check(inputs, found(Kind::Slice, "web", 1), "web", &["web", "web"]);
    check(inputs, found(Kind::Service, "web", 0), "web", &["web"]);
    // The Service is gone, what cannot be read of it is still said.
    let goes = InputEvent::Service(key("web"), None);
    check(inputs, goes, "web", &["web"]);
}

#[test]
fn findings_about_a_node_stand_for_themselves() {
    let mut inputs = Inputs::default();
    let node = ObjectKey::new("", "web");
    let found = vec![Diagnostic {
        object: node.clone(),
        ..finding("web")
    }];
    inputs.apply(InputEvent::Service(key("web"), Some(service(|_| {}))));
    let touched = inputs.apply(InputEvent::Findings(
        Kind::Node,
        node.clone(),
        found.clone(),
    ));
    assert_eq!(touched, [node.clone()].into());
    assert_eq!(derive_service(&inputs, &node, &settings()), (None, found));
    let (_, of_service) = derive_service(&inputs, &key("web"), &settings());
    assert_eq!(of_service, [], "a Service of that name has none");
    inputs.apply(InputEvent::Findings(Kind::Node, node.clone(), Vec::new()));
    assert_eq!(
        derive_service(&inputs, &node, &settings()),
        (None, Vec::new())
    );
}
