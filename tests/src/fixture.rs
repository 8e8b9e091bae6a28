//! A lab for one test: up before, diagnosed when the test fails, gone afterwards either way.

use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use futures::FutureExt as _;
use seaway_lab::{Lab, LabConfig, LabName, Mode};

/// A name that no other test has: nextest runs each in a process of its own.
pub fn lab_name() -> LabName {
    let name = format!("t{}", std::process::id());
    name.parse()
        .unwrap_or_else(|error| panic!("{name} is no lab name: {error}"))
}

/// Two nodes: iptables, ebpf.
pub fn one_of_each_mode() -> LabConfig {
    nodes(2, &["n2"])
}

/// Two nodes: ebpf, ebpf.
pub fn two_in_mode_ebpf() -> LabConfig {
    nodes(2, &["n1", "n2"])
}

/// Three nodes, with the modes of the demo: iptables, ebpf, iptables.
pub fn mixed() -> LabConfig {
    nodes(3, &["n2"])
}

/// Four nodes: iptables, ebpf, iptables, ebpf.
pub fn two_of_each_mode() -> LabConfig {
    nodes(4, &["n2", "n4"])
}

/// So many nodes, these of them in mode ebpf and the others in mode iptables.
fn nodes(count: usize, ebpf: &[&str]) -> LabConfig {
    LabConfig::new(lab_name())
        .map(|config| config.nodes(count, Mode::Iptables))
        .and_then(|config| {
            ebpf.iter()
                .try_fold(config, |config, name| config.mode(name, Mode::Ebpf))
        })
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Three nodes of one mode.
pub fn uniform(mode: Mode) -> LabConfig {
    LabConfig::new(lab_name())
        .map(|config| config.nodes(3, mode))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `test` in a lab. A failure, panics included, prints the diagnosis of the lab before it is taken down.
pub async fn with_lab(config: LabConfig, test: impl AsyncFnOnce(&mut Lab) -> Result<()>) {
    let mut lab = match Lab::up_for_test(config).await {
        Ok(lab) => lab,
        Err(error) => panic!("the lab did not come up: {error}"),
    };
    let outcome = AssertUnwindSafe(test(&mut lab)).catch_unwind().await;
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(anyhow!("panic: {}", message(&*panic))),
    };
    if let Some(error) = failure {
        eprintln!("{}", lab.diagnose().await);
        // Taken down here, so that what `down` finds is seen as well.
        if let Err(left) = lab.down().await {
            eprintln!("{left}");
        }
        panic!("{error:#}");
    }
    if let Err(left) = lab.down().await {
        panic!("{left}");
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)")
}
