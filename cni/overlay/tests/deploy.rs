//! What `deploy/` holds of the overlay is what the binaries take and need.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Parser;
use seaway_overlay::cli::{Cli, Command};
use seaway_overlay::run::NEEDED;

/// Keys of the unit with their values; none comes more than once.
fn unit() -> BTreeMap<String, String> {
    let path = "../../deploy/systemd/seaway-overlay.service";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).unwrap();
    let mut unit = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with(['#', '[']) || line.is_empty() {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap();
        let former = unit.insert(key.to_owned(), value.to_owned());
        assert_eq!(former, None, "{key}");
    }
    unit
}

/// As systemd makes it of a line and the unit's environment: `$NAME` is as many words as it has, `${NAME}` a part of one.
fn words(line: &str, environment: &str) -> Vec<String> {
    let mut line = line.to_owned();
    for variable in environment.split(' ') {
        let (name, value) = variable.split_once('=').unwrap();
        line = line.replace(&format!("${{{name}}}"), value);
        line = line.replace(&format!("${name}"), value);
    }
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_binaries_take_what_the_unit_gives() {
    let unit = unit();
    let start = words(&unit["ExecStart"], &unit["Environment"]);
    assert_eq!(start[0], "/usr/bin/seaway-overlay");
    let Command::Run(run) = Cli::try_parse_from(&start).unwrap().command else {
        panic!("{start:?}");
    };
    assert_eq!(run.cluster_cidr, ["10.244.0.0/16".parse().unwrap()]);
    let install = words(&unit["ExecStartPre"], &unit["Environment"]);
    assert_eq!(install[0], "/usr/bin/seaway-cni");
    seaway_cni::cli::Cli::try_parse_from(&install).unwrap();
    // Where both write by default.
    for (key, dir) in [
        ("RuntimeDirectory", &run.places.run_dir),
        ("StateDirectory", &run.places.state_dir),
    ] {
        assert!(dir.ends_with(&unit[key]), "{key}");
    }
    assert_eq!(unit["ProtectSystem"], "yes", "/etc must be writable");
}

#[test]
fn the_unit_grants_what_is_needed_and_no_more() {
    let granted = unit()["CapabilityBoundingSet"].clone();
    let granted: BTreeSet<&str> = granted.split(' ').collect();
    let needed = NEEDED.iter().map(|capability| capability.name).collect();
    assert_eq!(granted, needed);
}
