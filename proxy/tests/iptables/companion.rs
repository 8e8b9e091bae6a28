//! The rules beside eBPF mode: those of SCTP ports alone, and none where there are none.

use std::net::IpAddr;
use std::time::Duration;

use prometheus_client::registry::Registry;
use seaway_kernel::capabilities::IptablesVariant;
use seaway_model::{Change, Desired, Family, FrontendAddr, FrontendKind, ObjectKey, Protocol};
use seaway_proxy::companion::{Companion, Metrics};
use seaway_proxy::dataplane::Dataplane;
use seaway_proxy::iptables::IptablesConfig;

use crate::machine::{in_each_variant, program, run, service_with};
use crate::world::FAMILIES;

/// Beside `default/web` a Service with an SCTP port.
fn with_sctp() -> Desired {
    let mut desired = service_with(&[2]);
    let mut rules = desired.services[&ObjectKey::new("default", "web")].clone();
    for rule in &mut rules.ports {
        rule.protocol = Protocol::Sctp;
        for frontend in &mut rule.frontends {
            frontend.protocol = Protocol::Sctp;
            match frontend.kind {
                FrontendKind::NodePort => frontend.port = 30_090,
                _ => {
                    frontend.port = 3868;
                    frontend.addr = FrontendAddr::Ip(sctp_ip(rule.family));
                }
            }
        }
    }
    desired
        .services
        .insert(ObjectKey::new("default", "hss"), rules);
    desired
}

fn sctp_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 96, 0, 20].into(),
        Family::V6 => [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 20].into(),
    }
}

/// All rules of a family, in both variants.
fn saved(family: Family) -> String {
    [IptablesVariant::NfTables, IptablesVariant::Legacy]
        .map(|variant| run(&format!("{}-save", program(family, variant)), &[], ""))
        .concat()
}

/// Waits until the rules are so.
async fn wait_until(what: &str, is_so: impl Fn(&str) -> bool) {
    for _ in 0..300 {
        if FAMILIES.iter().all(|family| is_so(&saved(*family))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: {}", FAMILIES.map(saved).concat());
}

fn serves_sctp(rules: &str) -> bool {
    rules.contains("-p sctp") && rules.contains("3868") && rules.contains("30090")
}

/// The other Services are carried by the programs.
fn serves_tcp(rules: &str) -> bool {
    ["10.96.0.10/32", "fd00:10:96::a/128", "--dport 30080 "]
        .iter()
        .any(|words| rules.contains(words))
}

fn start() -> Companion {
    let metrics = Metrics::new(&mut Registry::default());
    Companion::start(IptablesConfig::default(), metrics)
}

#[test]
fn rules_are_there_while_there_is_sctp() {
    in_each_variant(|_| async {
        let companion = start();
        let without = service_with(&[2]);
        companion.programmed(&without, &Change::Full);
        companion.begin(false).await;
        wait_until("nothing to carry", |rules| !rules.contains("SEAWAY")).await;

        let with = with_sctp();
        let keys = || Change::Services([ObjectKey::new("default", "hss")].into());
        companion.programmed(&with, &keys());
        wait_until("SCTP comes", |rules| {
            serves_sctp(rules) && !serves_tcp(rules)
        })
        .await;
        // Of what is half seen nothing is dropped.
        wait_until("half connections", |rules| !rules.contains("INVALID")).await;

        // Somebody flushes the rules.
        for family in FAMILIES {
            for variant in [IptablesVariant::NfTables, IptablesVariant::Legacy] {
                run(program(family, variant), &["-t", "nat", "-F"], "");
            }
        }
        wait_until("a flush is repaired", serves_sctp).await;

        companion.programmed(&without, &keys());
        wait_until("SCTP goes", |rules| !rules.contains("SEAWAY")).await;
    });
}

/// What iptables mode has left is its to tidy up, when it is told to begin: what it needs of that is never away.
#[test]
fn rules_of_iptables_mode_are_taken_over() {
    for (desired, expected) in [(with_sctp(), true), (service_with(&[2]), false)] {
        in_each_variant(|machine| {
            let desired = desired.clone();
            async move {
                let mut mode = machine.with(&desired).await;
                let companion = start();
                companion.programmed(&desired, &Change::Full);
                tokio::task::yield_now().await;
                assert!(serves_tcp(&saved(Family::V4)), "not before it is told to");
                companion.begin(false).await;
                for family in FAMILIES {
                    let rules = saved(family);
                    assert_eq!(serves_sctp(&rules), expected, "{rules}");
                    assert_eq!(rules.contains("SEAWAY"), expected, "{rules}");
                    assert!(!serves_tcp(&rules), "{rules}");
                }
                // And the other way round: rules stay when it goes, for iptables mode to adopt.
                drop(companion);
                assert_eq!(serves_sctp(&saved(Family::V4)), expected);
                mode.cleanup().await.unwrap();
            }
        });
    }
}
