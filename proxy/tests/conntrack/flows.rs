//! What becomes of flows.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use seaway_model::Family;

use crate::world::{
    Client, Heard, NODE_PORT, Server, World, node_port_at, outside, pod, run, service_at,
};

const SECOND: Duration = Duration::from_secs(1);
/// It takes a fraction of a second where the machine has nothing else to do; a loaded one gets more.
const LIMIT: Duration = Duration::from_secs(4);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The hosts of the pods that run in these tests.
const HOSTS: [u8; 3] = [2, 3, 4];

fn servers(family: Family) -> Vec<Server> {
    let start = |host| Server::start(pod(family, host));
    HOSTS.into_iter().map(start).collect()
}

/// Clients of a Service: in the node, and outside at the node port.
fn clients(world: &World, family: Family) -> [Client; 2] {
    let outside = {
        let _inside = world.outside.enter().unwrap();
        Client::new(node_port_at(family))
    };
    [Client::new(service_at(family)), outside]
}

/// A client whose first datagram is answered, and by whom: the rules are in force.
fn served(to: SocketAddr) -> (Client, SocketAddr) {
    for _ in 0..250 {
        let client = Client::new(to);
        if let Heard::From(server) = client.ask() {
            return (client, server);
        }
    }
    panic!("{to} answers no new client within 5 s");
}

fn host_of(server: SocketAddr) -> u8 {
    let hosts = HOSTS.into_iter();
    let mut found = hosts.filter(|host| FAMILIES.iter().any(|f| pod(*f, *host) == server));
    found.next().unwrap()
}

fn others(host: u8) -> Vec<(u8, &'static str)> {
    let hosts = HOSTS.into_iter().filter(|other| *other != host);
    hosts.map(|host| (host, "rs")).collect()
}

#[test]
fn a_client_that_sends_on_is_moved_within_a_second() {
    World::each(|world, family| {
        let servers = servers(family);
        world.with_proxy(true, |proxy| {
            proxy.service(&[(2, "rs"), (3, "rs")]);
            proxy.synced();
            for client in clients(world, family) {
                let first = client.somebody();
                for _ in 0..20 {
                    assert_eq!(client.ask(), Heard::From(first), "a flow stays where it is");
                }
                let dead = host_of(first);
                servers[usize::from(dead - 2)].die();
                proxy.service(&others(dead));
                let took = client.until(
                    LIMIT,
                    |heard| matches!(heard, Heard::From(server) if server != first),
                );
                println!("{:?} {family:?}: moved after {took:?}", world.variant);
                // For the other client both are there again.
                servers[usize::from(dead - 2)].revive();
                proxy.service(&[(2, "rs"), (3, "rs")]);
            }
        });
    });
}

/// The same without the clean-up: this is what it is for.
#[test]
fn without_the_clean_up_a_client_is_stuck() {
    World::each(|world, family| {
        let servers = servers(family);
        world.with_proxy(false, |proxy| {
            proxy.service(&[(2, "rs"), (3, "rs")]);
            proxy.synced();
            let (client, first) = served(service_at(family));
            let dead = host_of(first);
            servers[usize::from(dead - 2)].die();
            proxy.service(&others(dead));
            std::thread::sleep(SECOND);
            // New flows show that the rules are in force.
            for _ in 0..20 {
                assert_ne!(served(service_at(family)).1, first);
                assert_eq!(client.ask(), Heard::Nothing);
            }
        });
    });
}

#[test]
fn a_service_without_endpoints_refuses_and_comes_back() {
    World::each(|world, family| {
        let _servers = servers(family);
        world.with_proxy(true, |proxy| {
            proxy.service(&[(2, "rs")]);
            proxy.synced();
            let clients = clients(world, family);
            for client in &clients {
                assert_eq!(client.somebody(), pod(family, 2));
            }
            for endpoint in [3, 2] {
                // The pod still runs: only the Service has let it go.
                proxy.service(&[]);
                for client in &clients {
                    client.until(LIMIT, |heard| heard == Heard::Refused);
                    client.until(LIMIT, |heard| heard == Heard::Refused);
                }
                proxy.service(&[(endpoint, "rs")]);
                for client in &clients {
                    client.until(LIMIT, |h| h == Heard::From(pod(family, endpoint)));
                }
            }
            proxy.delete_service();
            for client in &clients {
                client.until(LIMIT, |heard| !matches!(heard, Heard::From(_)));
            }
        });
    });
}

/// Nobody is there when the client begins to send: its packets leave untranslated, and so would all that follow.
#[test]
fn a_service_that_comes_after_its_client_is_found() {
    World::each(|world, family| {
        let _servers = servers(family);
        // Connection tracking works without the proxy, as on every node.
        run("iptables -A OUTPUT -m conntrack --ctstate NEW");
        run("ip6tables -A OUTPUT -m conntrack --ctstate NEW");
        let client = Client::new(service_at(family));
        world.with_proxy(true, |proxy| {
            proxy.synced();
            for _ in 0..10 {
                assert_eq!(client.ask(), Heard::Nothing);
            }
            let port = client.port();
            let tracked = run("conntrack -L -p udp");
            let v6 = run("conntrack -L -p udp -f ipv6");
            assert!(format!("{tracked}{v6}").contains(&format!("sport={port} ")));
            proxy.service(&[(2, "rs")]);
            client.until(LIMIT, |heard| heard == Heard::From(pod(family, 2)));
        });
    });
}

/// Entries of UDP and TCP, without what changes by itself.
fn tracked(family: Family) -> BTreeSet<String> {
    let name = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let listed = run(&format!("conntrack -L -o id -f {name}"));
    let line = |line: &str| {
        let words = line.split_whitespace();
        let kept = words.filter(|word| word.contains('=') && !word.starts_with("use="));
        kept.collect::<Vec<_>>().join(" ")
    };
    listed.lines().map(line).collect()
}

#[test]
fn flows_of_others_and_to_living_endpoints_stay() {
    World::each(|world, family| {
        let _servers = servers(family);
        world.with_proxy(true, |proxy| {
            proxy.service(&[(2, "rs"), (3, "rs"), (4, "rs")]);
            proxy.synced();
            served(service_at(family));
            // Until the first look is over.
            std::thread::sleep(SECOND);

            // One client at a pod that will stay, one at a pod that will leave.
            let at = |host: u8| loop {
                let (client, server) = served(service_at(family));
                if server == pod(family, host) {
                    return client;
                }
            };
            let (stays, ends) = (at(2), at(3));
            // Somebody else's port mapping and zone, the number of a node port at another machine, a pod asked directly.
            let tool = match family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let stranger = pod(family, 9);
            run(&format!(
                "{tool} -t nat -A OUTPUT -p udp --dport 8053 -j DNAT --to {stranger}"
            ));
            run(&format!(
                "{tool} -t raw -A OUTPUT -p udp --dport 5555 -j CT --zone 9"
            ));
            let node = node_port_at(family).ip();
            let datagram = |to: SocketAddr| {
                let socket = UdpSocket::bind((node, 0)).unwrap();
                socket.send_to(b"?", to).unwrap();
                socket
            };
            let _others = [
                SocketAddr::new(node, 8053),
                SocketAddr::new(stranger.ip(), 5555),
                SocketAddr::new(outside(family), NODE_PORT),
                pod(family, 3),
            ]
            .map(datagram);
            let tcp = SocketAddr::new(pod(family, 3).ip(), 53);
            let listener = TcpListener::bind(tcp).unwrap();
            let mut stream = TcpStream::connect(tcp).unwrap();

            let before = tracked(family);
            assert!(before.len() >= 7, "{before:?}");
            let of = |entries: &BTreeSet<String>, client: &Client| {
                let ports = format!("sport={} dport=53 ", client.port());
                entries.iter().filter(|e| e.contains(&ports)).count()
            };
            assert_eq!((of(&before, &stays), of(&before, &ends)), (1, 1));

            // One pod leaves; another terminates but still answers.
            proxy.service(&[(2, "st"), (4, "rs")]);
            std::thread::sleep(SECOND);
            let after = tracked(family);
            let (to, from) = (service_at(family).ip(), pod(family, 3).ip());
            let to_the_dead = |entry: &&String| {
                entry.contains(&format!(" dst={to} ")) && entry.contains(&format!(" src={from} "))
            };
            let gone: BTreeSet<_> = before.difference(&after).collect();
            let expected: BTreeSet<_> = before.iter().filter(to_the_dead).collect();
            assert_eq!(gone, expected);
            assert_eq!(of(&after, &ends), 0);
            stays.until(LIMIT, |heard| heard == Heard::From(pod(family, 2)));
            assert_eq!(of(&tracked(family), &stays), 1);
            stream.write_all(b"x").unwrap();
            listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        });
    });
}
