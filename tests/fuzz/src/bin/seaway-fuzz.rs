//! One fuzz target under libFuzzer: the one that `SEAWAY_FUZZ_TARGET` names. Started by `cargo xtask fuzz`.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use seaway_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("SEAWAY_FUZZ_TARGET").unwrap_or_default();
    seaway_fuzz::target(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "SEAWAY_FUZZ_TARGET is {name:?}; the targets are {}",
            known.join(", ")
        );
        std::process::exit(2);
    })
}

fuzz_target!(
    init: chosen(),
    |bytes: &[u8]| (TARGET.get_or_init(chosen).check)(bytes)
);
