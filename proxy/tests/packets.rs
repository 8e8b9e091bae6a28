//! `docs/packets.md` says what is true: how many classes of packets there are, how many disagreements were found, and which
//! seeds of the fuzzer hold them fixed. That its tests are there is seen to by `tests/tests/promises.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use seaway_model::testing::classes::{Class, Way, is_for_classifiers, of_scene};
use seaway_model::testing::scenes::scenes;
use seaway_model::{Family, FrontendKind, Packet, Protocol};

const DOCUMENT: &str = include_str!("../../docs/packets.md");

/// The classes of all scenes, by the ways that are wanted.
fn classes(wanted: impl Fn(&Packet, Way) -> bool) -> BTreeSet<Class> {
    let scenes = scenes();
    let each = scenes.iter().flat_map(|scene| of_scene(scene, &wanted));
    each.collect()
}

fn kind(class: &Class) -> &'static str {
    match class.frontend.as_ref().map(|frontend| frontend.kind) {
        Some(FrontendKind::ClusterIp) => "a cluster IP",
        Some(FrontendKind::NodePort) => "a node port",
        Some(FrontendKind::LoadBalancer) => "a load balancer's address",
        Some(FrontendKind::ExternalIp) => "an external IP",
        None => "nothing that is served",
    }
}

/// One line for each way and frontend: how many classes there are, and by how many protocols, families and levels.
fn table() -> String {
    let all = classes(|_, _| true);
    let programs = classes(is_for_classifiers);
    let mut rows: BTreeMap<(Way, Option<FrontendKind>), Vec<&Class>> = BTreeMap::new();
    for class in &all {
        let kind = class.frontend.as_ref().map(|frontend| frontend.kind);
        rows.entry((class.way, kind)).or_default().push(class);
    }
    let count = |classes: &[&Class], is: &dyn Fn(&Class) -> bool| {
        classes.iter().filter(|class| is(class)).count()
    };
    let mut text = String::from(
        "| comes by | knocks at | classes | TCP | UDP | SCTP | IPv4 | IPv6 | loaded programs |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut line = |by: &str, at: &str, classes: &[&Class]| {
        write!(text, "| {by} | {at} | {} |", classes.len()).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let of_protocol = count(classes, &|class| class.protocol == protocol);
            write!(text, " {of_protocol} |").unwrap();
        }
        for family in [Family::V4, Family::V6] {
            let of_family = count(classes, &|class| class.family == family);
            write!(text, " {of_family} |").unwrap();
        }
        let in_programs = count(classes, &|class| programs.contains(class));
        writeln!(text, " {in_programs} |").unwrap();
    };
    for ((way, _), classes) in &rows {
        line(&way.to_string(), kind(classes[0]), classes);
    }
    line("all", "", &all.iter().collect::<Vec<_>>());
    text
}

#[test]
fn the_classes_are_as_many_as_the_document_says() {
    let table = table();
    assert!(
        DOCUMENT.contains(&table),
        "docs/packets.md has another table than this:\n{table}"
    );
    let all = classes(|_, _| true).len();
    let headline = format!("**{all} classes of packets**");
    assert!(DOCUMENT.contains(&headline), "{headline}");
}

/// The lines of a table below a heading, but its head.
fn rows(heading: &str) -> Vec<&'static str> {
    let (_, below) = DOCUMENT.split_once(heading).unwrap();
    let lines = below.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.collect()
}

#[test]
fn every_seed_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for seed in DOCUMENT
        .split('`')
        .filter(|w| w.starts_with("tests/fuzz/corpus/"))
    {
        assert!(root.join(seed).exists(), "no such seed: {seed}");
    }
}

#[test]
fn disagreements_are_as_many_as_are_listed() {
    let listed = rows("## Disagreements");
    let headline = format!("**{} disagreements**", listed.len());
    assert!(DOCUMENT.contains(&headline), "{headline}");
    let numbered = listed.iter().zip(1..);
    for (row, number) in numbered {
        assert!(row.starts_with(&format!("| {number} |")), "{row}");
    }
}
