//! What is refused and what is dropped, with packets of both families and protocols, on a node with a default route
//! and on one without.

use std::time::Duration;

use seaway_model::{Change, Desired, Protocol, TrafficPolicy};
use seaway_proxy::dataplane::Dataplane;

use crate::machine::run;
use crate::world::{Answer, FAMILIES, World, cluster_ip, in_each_world, node_address, web_with};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Who asks: a pod of the node, a process of the node, and a client outside.
const CLIENTS: [&str; 3] = ["pod3", "node", "out"];

fn check(world: &World, clients: &[&str], port: u16, expected: Answer) {
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            for client in clients {
                let to = cluster_ip(family, 10, port);
                let found = world.ask(client, &to, protocol);
                assert_eq!(found, expected, "{client} -> {to}/{protocol}");
            }
        }
    }
}

fn routes_of_ours() -> usize {
    let lines = |args: &[&str]| run("ip", args, "").lines().count();
    lines(&["route", "show", "proto", "83", "metric", "83000"])
        + lines(&["-6", "route", "show", "proto", "83", "metric", "83000"])
}

/// What a cluster without and with usable endpoints does to packets, whatever routes the node has.
async fn refusals(world: &World, dataplane: &mut impl Dataplane) {
    let mut set = async |desired: Desired| {
        let plan = dataplane.plan(&desired, &Change::Full);
        dataplane.apply(plan).await.unwrap();
    };
    // No endpoints: refused at once.
    set(web_with(&[], |_| {})).await;
    check(world, &CLIENTS, 80, Answer::Refused);
    // No port of the Service: refused, although others are served.
    set(web_with(&[2], |_| {})).await;
    check(world, &CLIENTS, 81, Answer::Refused);
    for family in FAMILIES {
        for client in CLIENTS {
            let to = cluster_ip(family, 10, 80);
            let found = world.ask(client, &to, Protocol::Tcp);
            assert!(
                matches!(found, Answer::Served { .. }),
                "{client} -> {to}: {found:?}"
            );
        }
    }
    // Endpoints, but none that the policy allows: silence.
    let mut elsewhere = web_with(&[2], |s| s.internal_policy = TrafficPolicy::Local);
    for service in elsewhere.services.values_mut() {
        for port in &mut service.ports {
            port.local.clear();
        }
    }
    set(elsewhere).await;
    check(world, &["pod3", "node"], 80, Answer::Silence);
}

#[test]
fn a_node_without_a_default_route_refuses_and_drops_all_the_same() {
    in_each_world(|machine, world| async move {
        // What kube-proxy's rules would do: the filter table is never asked.
        let mut dataplane = machine.with(&web_with(&[], |_| {})).await;
        run(
            "ip",
            &["route", "flush", "proto", "83", "metric", "83000"],
            "",
        );
        let to = cluster_ip(FAMILIES[0], 10, 80);
        for client in CLIENTS {
            assert_eq!(world.ask(client, &to, Protocol::Tcp), Answer::Unreachable);
        }
        dataplane.observe().await.unwrap();
        refusals(&world, &mut dataplane).await;

        // One route for each frontend address that needs it, gone with the Service.
        assert_eq!(routes_of_ours(), 2);
        let plan = dataplane.plan(&Desired::default(), &Change::Full);
        dataplane.apply(plan).await.unwrap();
        assert_eq!(routes_of_ours(), 0);

        machine.with(&web_with(&[], |_| {})).await;
        let removed = dataplane.cleanup().await.unwrap();
        assert_eq!(
            removed.last().map(String::as_str),
            Some("2 routes of Services")
        );
        assert_eq!(routes_of_ours(), 0);
    });
}

#[test]
fn a_node_with_a_default_route_needs_no_routes_of_ours() {
    in_each_world(|machine, world| async move {
        machine.with(&web_with(&[], |_| {})).await;
        assert_eq!(routes_of_ours(), 2);
        world.add_default_routes();
        let mut dataplane = machine.with(&web_with(&[], |_| {})).await;
        assert_eq!(routes_of_ours(), 0);
        refusals(&world, &mut dataplane).await;
        assert_eq!(routes_of_ours(), 0);
    });
}

#[test]
fn a_ping_to_a_cluster_ip_is_not_refused() {
    in_each_world(|machine, world| async move {
        world.add_default_routes();
        machine.with(&web_with(&[2], |_| {})).await;
        let pod = world.netns("pod3");
        for target in ["10.96.0.10", "fd00:10:96::a"] {
            let answer = pod
                .run(|| {
                    std::process::Command::new("ping")
                        .args(["-c", "1", "-W", "1", target])
                        .output()
                })
                .unwrap();
            // Where there is no ping, there is nothing to see.
            if let Ok(answer) = answer {
                let text = String::from_utf8_lossy(&answer.stdout).into_owned();
                assert!(!text.contains("Port Unreachable"), "{text}");
            }
        }
    });
}

#[test]
fn node_ports_without_endpoints_are_refused() {
    in_each_world(|machine, world| async move {
        machine.with(&web_with(&[], |_| {})).await;
        for family in FAMILIES {
            for second in [false, true] {
                for protocol in PROTOCOLS {
                    let to = node_address(family, second, 30_080);
                    assert_eq!(world.ask("out", &to, protocol), Answer::Refused, "{to}");
                    assert_eq!(world.ask("pod2", &to, protocol), Answer::Refused, "{to}");
                }
            }
        }
    });
}

#[test]
fn routes_of_ours_follow_those_of_the_node() {
    in_each_world(|machine, world| async move {
        let mut dataplane = machine.with(&web_with(&[], |_| {})).await;
        let mut until = async |count: usize| {
            for _ in 0..600 {
                if routes_of_ours() == count {
                    return;
                }
                let moment = Duration::from_millis(25);
                let change = tokio::time::timeout(moment, dataplane.watch()).await;
                assert!(change.is_err(), "{change:?}");
            }
            panic!("{} routes of ours, not {count}", routes_of_ours());
        };
        let without = routes_of_ours();
        assert_ne!(without, 0);
        until(without).await;
        world.add_default_routes();
        until(0).await;
        world.ip("node", "route del default\n-6 route del default");
        until(without).await;
        // The kernel takes all routes of a link with it.
        world.ip("node", "link set eth0 down");
        world.ip("node", "link set eth0 up");
        until(without).await;
        let to = cluster_ip(FAMILIES[0], 10, 80);
        assert_eq!(world.ask("node", &to, Protocol::Tcp), Answer::Refused);
    });
}
