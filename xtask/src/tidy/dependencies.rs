//! Dependencies only go down, and some stay out of some trees altogether.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::Metadata;

/// Package, and what must not be anywhere in its tree of normal dependencies, with the reason.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "seaway-model",
        &["tokio", "kube", "k8s-openapi", "libc", "nix", "rtnetlink"],
        "the model is pure",
    ),
    (
        "seaway-kernel",
        &["kube", "k8s-openapi", "seaway-cluster"],
        "the kernel shell knows no Kubernetes",
    ),
    (
        "seaway-cni",
        &["kube", "k8s-openapi", "rustls", "hyper", "seaway-cluster"],
        "the plugin starts in a millisecond: no API client, no TLS",
    ),
    (
        "seaway-proxy",
        CONTROL_PLANE,
        "the node meets the control plane over the Kubernetes API only",
    ),
    (
        "seaway-overlay",
        CONTROL_PLANE,
        "the node meets the control plane over the Kubernetes API only",
    ),
    (
        "seaway-lab",
        CONTROL_PLANE,
        "the lab starts binaries; it links none of them",
    ),
    (
        "xtask",
        &["seaway-model", "seaway-kernel", "seaway-lab", "tokio"],
        "xtask must build before anything else can",
    ),
];

const CONTROL_PLANE: &[&str] = &[
    "seaway-store",
    "seaway-apiserver",
    "seaway-controllers",
    "seaway-agent",
    "redb",
];

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            // Metadata unifies features with those of tests: what only a `testing` feature brings shows up as a normal
            // dependency, and is none of any binary.
            let testing = |id: &str| names.get(id) == Some(&"proptest");
            let normal = node.deps.iter().filter(|dependency| {
                let normal = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
                normal && !testing(&dependency.pkg)
            });
            (node.id.as_str(), normal.map(|d| d.pkg.as_str()).collect())
        })
        .collect();

    let mut found = Vec::new();
    for (package, forbidden, reason) in FORBIDDEN {
        let Some(root) = names.iter().find(|(_, name)| *name == package) else {
            continue;
        };
        let tree = tree(root.0, &edges);
        for id in tree {
            if let Some(name) = names.get(id)
                && forbidden.contains(name)
            {
                found.push(format!("{package} depends on {name}: {reason}"));
            }
        }
    }
    found
}

/// Everything below `root`, without it.
fn tree<'a>(root: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        for next in edges.get(id).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_what_is_below_and_survives_a_cycle() {
        let edges = BTreeMap::from([
            ("a", vec!["b"]),
            ("b", vec!["c"]),
            ("c", vec!["b"]),
            ("d", vec!["a"]),
        ]);
        assert_eq!(tree("a", &edges), BTreeSet::from(["b", "c"]));
    }
}
