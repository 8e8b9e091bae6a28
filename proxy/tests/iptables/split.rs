//! Our nat rules in the nft variant on a legacy node, beside what others have in the legacy tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seaway_kernel::NetNs;
use seaway_model::{Change, Family, Protocol};
use seaway_proxy::dataplane::Dataplane;

use crate::machine::{LEGACY, NFT, SPLIT, block_on, pod, run};
use crate::world::{Answer, FAMILIES, World, cluster_ip, in_world_of, node_address, web_with};

fn legacy(family: Family, args: &str) {
    LEGACY.iptables_of(family, args);
}

fn lines(program: &str, needle: &str) -> usize {
    let saved = run(&format!("{program}-save"), &[], "");
    saved.lines().filter(|line| line.contains(needle)).count()
}

fn served(answer: Answer) -> bool {
    matches!(answer, Answer::Served { .. })
}

#[test]
fn a_firewall_of_the_legacy_variant_does_not_keep_services_from_pods() {
    in_world_of(SPLIT, |machine, world| async move {
        world.add_default_routes();
        for family in FAMILIES {
            legacy(family, "-t filter -P FORWARD DROP");
            // As firewalls end.
            legacy(family, "-t filter -A FORWARD -j DROP");
        }
        let mut dataplane = machine.with(&web_with(&[2], |_| {})).await;
        for family in FAMILIES {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let node_port = node_address(family, false, 30_080);
                let found = world.ask("out", &node_port, protocol);
                assert!(served(found), "{node_port}: {found:?}");
                let found = world.ask("out", &cluster_ip(family, 10, 80), protocol);
                assert!(served(found), "{found:?}");
            }
            // What is no Service is for the firewall: pods do not reach each other, nor are they reached.
            let direct = std::net::SocketAddr::new(pod(family, 2), 8080).to_string();
            let found = world.ask("pod3", &direct, Protocol::Tcp);
            assert_eq!(found, Answer::Silence);
        }
        // Refusals come before the firewall's silence.
        let plan = dataplane.plan(&web_with(&[], |_| {}), &Change::Full);
        dataplane.apply(plan).await.unwrap();
        for family in FAMILIES {
            let to = cluster_ip(family, 10, 80);
            for client in ["pod3", "out", "node"] {
                let found = world.ask(client, &to, Protocol::Tcp);
                assert_eq!(found, Answer::Refused, "{client}");
            }
        }
    });
}

/// What Docker writes: a port of the node that leads to a container, and masquerade of what containers send.
fn docker(published: u16) {
    for rule in [
        "-N DOCKER".to_owned(),
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        "-A POSTROUTING -s 10.244.1.3/32 ! -o docker0 -j MASQUERADE".to_owned(),
        format!(
            "-A DOCKER -p tcp -m tcp --dport {published} -j DNAT --to-destination 10.244.1.3:8080"
        ),
    ] {
        legacy(Family::V4, &format!("-t nat {rule}"));
    }
}

#[test]
fn nat_rules_of_others_in_the_legacy_variant_go_on_working() {
    for docker_first in [true, false] {
        in_world_of(SPLIT, |machine, world| async move {
            world.add_default_routes();
            if docker_first {
                docker(9090);
            }
            let desired = web_with(&[2], |_| {});
            let dataplane = machine.with(&desired).await;
            if !docker_first {
                docker(9090);
            }
            check_beside_docker(&world);
            drop(dataplane);
            // And after a restart, of them too.
            machine.with(&desired).await;
            check_beside_docker(&world);
            assert_eq!(lines("iptables-legacy", "SEAWAY-SERVICES"), 0);
            assert!(lines("iptables-nft", "SEAWAY-SERVICES") > 0);
        });
    }
}

fn check_beside_docker(world: &World) {
    let v4 = Family::V4;
    // Theirs: the published port, from outside and from the node.
    let published = node_address(v4, false, 9090);
    for client in ["out", "node"] {
        assert_eq!(world.servers(client, &published, 1), [pod(v4, 3)]);
    }
    // Ours, from a client that is masqueraded by them, and from others.
    let masqueraded = world.ask("pod3", &cluster_ip(v4, 10, 80), Protocol::Tcp);
    let Answer::Served { by, peer } = masqueraded else {
        panic!("{masqueraded:?}");
    };
    assert_eq!(by, pod(v4, 2));
    assert_ne!(peer, pod(v4, 3), "their masquerade is left out");
    for to in [cluster_ip(v4, 10, 80), node_address(v4, false, 30_080)] {
        assert_eq!(world.servers("out", &to, 1), [pod(v4, 2)]);
        assert_eq!(world.servers("node", &to, 1), [pod(v4, 2)]);
    }
}

#[test]
fn a_node_moves_between_places_without_losing_a_connection() {
    in_world_of(LEGACY, |_, world| async move {
        world.add_default_routes();
        let desired = web_with(&[2, 3], |_| {});
        LEGACY.with(&desired).await;
        let stop = Arc::new(AtomicBool::new(false));
        let world = Arc::new(world);
        let clients: Vec<_> = [
            ("out", cluster_ip(Family::V4, 10, 80)),
            ("out", node_address(Family::V6, false, 30_080)),
            ("node", cluster_ip(Family::V4, 10, 80)),
            ("pod2", cluster_ip(Family::V6, 10, 80)),
        ]
        .into_iter()
        .map(|(client, to)| {
            let (stop, world) = (stop.clone(), world.clone());
            std::thread::spawn(move || {
                let (mut asked, mut lost) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    asked += 1;
                    match world.ask(client, &to, Protocol::Tcp) {
                        Answer::Served { .. } => {}
                        other => lost.push((asked, other)),
                    }
                }
                (client, asked, lost)
            })
        })
        .collect();
        let mut moves = Vec::new();
        for machine in [SPLIT, LEGACY, SPLIT, LEGACY, SPLIT] {
            std::thread::sleep(Duration::from_millis(100));
            machine.with(&desired).await;
            moves.push(where_nat_is());
        }
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(moves, ["nft", "legacy", "nft", "legacy", "nft"]);
        for client in clients {
            let (client, asked, lost) = client.join().unwrap();
            println!("{client}: {asked} connections");
            assert!(asked > 20, "{client}: {asked}");
            assert_eq!(lost, [], "{client} of {asked}");
        }
    });
}

fn where_nat_is() -> &'static str {
    match ["iptables-nft", "iptables-legacy"].map(|p| lines(p, "-j SEAWAY-SERVICES") > 0) {
        [true, false] => "nft",
        [false, true] => "legacy",
        both => panic!("nft, legacy: {both:?}"),
    }
}

#[test]
fn what_was_chosen_is_chosen_again() {
    let netns = NetNs::anonymous().unwrap();
    let test = async {
        let desired = web_with(&[2], |_| {});
        SPLIT.with(&desired).await;
        // Plain `iptables` may be another one by now, and the filter rules may be gone.
        for (plain, flush) in [(SPLIT, false), (NFT, false), (SPLIT, true)] {
            if flush {
                legacy(Family::V4, "-t filter -F");
                legacy(Family::V4, "-t filter -X");
            }
            let mut dataplane = plain.dataplane();
            let (placement, obstacle) = dataplane.placement().await.unwrap();
            assert_eq!(placement.to_string(), "filter=legacy nat=nft");
            assert_eq!(obstacle, None);
            plain.bring_up(dataplane, &desired).await;
        }
    };
    netns.run(|| block_on(test)).unwrap();
}

#[test]
fn the_kernel_is_asked_for_the_filter_table_only() {
    let netns = NetNs::anonymous().unwrap();
    let test = async {
        let mut dataplane = SPLIT.with(&web_with(&[2], |_| {})).await;
        let quiet = tokio::time::timeout(Duration::from_millis(1500), dataplane.watch()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        // Else each packet would pass another nat table.
        for file in ["ip_tables_names", "ip6_tables_names"] {
            let tables = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            assert_eq!(tables, "filter\n", "{file}");
        }
    };
    netns.run(|| block_on(test)).unwrap();
}
