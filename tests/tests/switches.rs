//! The mode is changed under traffic, to and fro: no byte is lost, no connection breaks, no flow changes its backend.

use seaway_tests::bench::{Stage, switch};
use seaway_tests::require::{self, Need};

/// `cargo xtask bench switch` does it fifty times.
const SWITCHES: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn no_flow_notices_a_change_of_mode() {
    let needs = [
        Need::Root,
        Need::Program("iptables-restore"),
        Need::Program("ip"),
        Need::Kernel(6, 6),
        Need::Binaries,
    ];
    if !require::met(&needs) {
        return;
    }
    let played = switch::play(&Stage::new(true), SWITCHES, 2).await.unwrap();
    let flows: usize = played.reports.iter().map(|(.., report)| report.flows).sum();
    assert!(flows >= 150, "{flows}");
    for (mode, place, report) in &played.reports {
        assert!(report.messages > 0, "{place}, begun in {mode}: {report}");
        assert!(report.is_whole(), "{place}, begun in {mode}: {report}");
    }
    let switched: usize = played.took.iter().map(|(_, took)| took.len()).sum();
    assert_eq!(switched, SWITCHES);
}
