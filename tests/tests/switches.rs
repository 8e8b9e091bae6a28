//! The mode is changed under traffic, to and fro: no byte is lost, no connection breaks, no flow changes its backend.

#![allow(clippy::unwrap_used)]

use seaway_tests::bench::flows::{Crowd, Daemon, World, crowd};
use seaway_tests::bench::{Stage, switch};
use seaway_tests::require::{self, Need};

/// `cargo xtask bench switch` does it fifty times.
const SWITCHES: usize = 6;

fn needs_are_met() -> bool {
    require::met(&[
        Need::Root,
        Need::Program("iptables-restore"),
        Need::Program("ip"),
        Need::Kernel(6, 6),
        Need::Binaries,
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flow_notices_a_change_of_mode() {
    if !needs_are_met() {
        return;
    }
    let played = switch::play(&Stage::new(true), SWITCHES, 2).await.unwrap();
    let flows: usize = played.reports.iter().map(|(.., report)| report.flows).sum();
    assert!(flows >= 200, "{flows}");
    for (mode, place, report) in &played.reports {
        assert!(report.messages > 0, "{place}, begun in {mode}: {report}");
        assert!(report.is_whole(), "{place}, begun in {mode}: {report}");
    }
    let switched: usize = played.took.iter().map(|(_, took)| took.len()).sum();
    assert_eq!(switched, SWITCHES);
}

/// Flows while a change fails when rules of one family have come or gone already, and while it is tried again.
async fn fails_half_way(from: &str, to: &str, refused: &str) {
    if !needs_are_met() {
        return;
    }
    let world = World::new().unwrap();
    let binaries = seaway_lab::topology::binaries().unwrap();
    let (proxy, worker) = (binaries.join("seaway-proxy"), binaries.join("seaway-bench"));
    let _servers = crowd::serve(&world, &worker).await.unwrap();
    let daemon = Daemon::start(&world, &proxy, from).await.unwrap();
    let crowd = Crowd::begin(&world, &worker, 1).await.unwrap();
    daemon.refuse(refused).unwrap();
    let error = format!("{:#}", daemon.switch(to).await.unwrap_err());
    assert!(daemon.has_refused(), "{error}");
    let stays = format!("the mode stays {from}");
    assert!(
        error.contains(&stays) && error.contains("the mode is as it was"),
        "{error}"
    );
    // Flows that begin in the mode that stayed.
    let second = Crowd::begin(&world, &worker, 1).await.unwrap();
    daemon.switch(to).await.unwrap();
    for crowd in [crowd, second] {
        for (place, report) in crowd.end().await.unwrap() {
            assert!(report.messages > 0, "{place}: {report}");
            assert!(report.is_whole(), "{place}: {report}\n{}", daemon.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_removed_come_back_in_full() {
    fails_half_way("iptables", "ebpf", "-X SEAWAY-").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_stay_where_rules_cannot_be_written() {
    fails_half_way("ebpf", "iptables", "default/plain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_in_the_file_is_taken_over_by_a_signal() {
    if !needs_are_met() {
        return;
    }
    let world = World::new().unwrap();
    let binaries = seaway_lab::topology::binaries().unwrap();
    let (proxy, worker) = (binaries.join("seaway-proxy"), binaries.join("seaway-bench"));
    let _servers = crowd::serve(&world, &worker).await.unwrap();
    let daemon = Daemon::start(&world, &proxy, "iptables").await.unwrap();
    let crowd = Crowd::begin(&world, &worker, 1).await.unwrap();
    // The second has nothing to do.
    for mode in ["ebpf", "ebpf", "iptables"] {
        daemon.reload(mode).await.unwrap();
    }
    for (place, report) in crowd.end().await.unwrap() {
        assert!(report.messages > 0, "{place}: {report}");
        assert!(report.is_whole(), "{place}: {report}\n{}", daemon.log());
    }
}
