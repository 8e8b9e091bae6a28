//! Manifest files.

use seaway_cluster::Interner;
use seaway_cluster::convert::{Object, ObjectRef};
use seaway_cluster::manifests::parse;

use crate::cluster::World;

/// Stands behind every input.
const LAST: &str = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: last, namespace: fuzz}\n\
    spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}\n";

/// What cannot be read is said and holds back nothing of the documents behind it; what can be read is served or said.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let alone = parse(text);
    let parsed = parse(&format!("{text}{LAST}"));
    assert_eq!(parsed.broken, alone.broken);
    assert_eq!(parsed.objects.len(), alone.objects.len() + 1);
    for (document, reason) in &parsed.broken {
        assert!(
            *document > 0 && !reason.is_empty() && !reason.contains('\n'),
            "{reason:?}"
        );
    }
    let mut world = World::default();
    for object in parsed.objects {
        world.set(object);
    }
    world.derive();
    world.check();
    assert!(world.serves(&last()), "the last document is not served");
}

fn last() -> ObjectRef {
    let last = parse(LAST).objects.pop();
    let reference = last.map(|object: Object| object.reference(&mut Interner::default()));
    reference.unwrap_or_else(|| panic!("{LAST}"))
}
