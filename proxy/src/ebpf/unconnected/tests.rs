use seaway_kernel::NetNs;

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn space(cookie: u64, addresses: &[&str]) -> Space {
    Space {
        netns: NetNs::current().unwrap(),
        cookie,
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn flow(from: &str, to: &str, by: &str) -> Flow {
    let (source, destination) = (at(from), at(to));
    Flow {
        protocol: UDP,
        original: Tuple {
            source,
            destination,
        },
        reply: Tuple {
            source: at(by),
            destination: source,
        },
        status: Status(Status::SEEN_REPLY.0),
        tcp: None,
        mark: 0,
        zone: 0,
        id: 1,
    }
}

/// Two pods and the node; the pods have a socket at the same port.
fn sockets() -> Sockets {
    let socket = |cookie, local: &str, space| Socket {
        cookie,
        local: at(local),
        space,
    };
    Sockets {
        spaces: vec![
            space(70, &["10.244.1.5", "fd00:244::5"]),
            space(80, &["10.244.1.6"]),
            space(90, &["192.0.2.1", "10.244.1.0"]),
        ],
        by_port: HashMap::from([
            (
                4000,
                vec![
                    socket(1, "0.0.0.0:4000", 0),
                    socket(2, "[::]:4000", 1),
                    socket(3, "10.244.1.0:4000", 2),
                ],
            ),
            (
                5000,
                vec![socket(4, "0.0.0.0:5000", 2), socket(5, "[::]:5000", 2)],
            ),
        ]),
    }
}

#[test]
fn a_flow_is_of_the_sockets_with_its_port_at_its_address() {
    let sockets = sockets();
    for (from, to, expected) in [
        ("10.244.1.5:4000", "10.96.0.10:53", vec![1]),
        ("10.244.1.6:4000", "10.96.0.10:53", vec![2]),
        ("10.244.1.0:4000", "10.96.0.10:53", vec![3]),
        // Bound to another address of the node.
        ("192.0.2.1:4000", "10.96.0.10:53", vec![]),
        ("[fd00:244::5]:4000", "[fd00:96::10]:53", vec![1]),
        // Which of them it was is not to be seen.
        ("192.0.2.1:5000", "10.96.0.10:53", vec![4, 5]),
        ("203.0.113.9:4000", "10.96.0.10:53", vec![]),
        ("10.244.1.5:4001", "10.96.0.10:53", vec![]),
    ] {
        let by = if to.starts_with('[') {
            "[fd00::7]:5353"
        } else {
            "10.244.2.5:5353"
        };
        let seeds = sockets.of_flow(&flow(from, to, by));
        let cookies: Vec<u64> = seeds.iter().map(|seed| seed.steady.0.cookie).collect();
        assert_eq!(cookies, expected, "{from}");
        for seed in seeds {
            let ((asked, steady), (served, shown)) = (seed.steady, seed.shown);
            assert_eq!(
                SocketAddr::new(asked.addr.ip(), u16::from_be(asked.port)),
                at(to)
            );
            assert_eq!(backend(&steady), at(by));
            assert!(!steady.is_left());
            // The hooks for what is received find their way back.
            assert_eq!((served.addr, served.port), (steady.addr, steady.port));
            assert_eq!((shown.addr, shown.port), (asked.addr, asked.port));
            assert!([70, 80, 90].contains(&shown.netns));
        }
    }
}

#[test]
fn rules_get_the_entry_that_they_would_have_made() {
    let original = Tuple {
        source: at("192.0.2.1:5000"),
        destination: at("10.96.0.10:53"),
    };
    let now = Tuple {
        source: at("10.244.1.0:5000"),
        destination: at("10.244.2.5:5353"),
    };
    let entry = as_rules_do(original, now, None);
    assert_eq!((entry.original, entry.reply), (original, now.swapped()));
    assert!(entry.answered && entry.protocol == UDP);
    // Masqueraded on its way: the backend goes on seeing the same client.
    let mut direct = flow("10.244.1.0:5000", "10.244.2.5:5353", "10.244.2.5:5353");
    direct.reply.destination = at("192.0.2.1:61000");
    direct.status = Status::default();
    let entry = as_rules_do(original, now, Some(&direct));
    assert_eq!(entry.reply, direct.reply);
    assert!(!entry.answered);
}

#[test]
fn a_masqueraded_client_may_have_another_port() {
    let mut entry = flow("192.0.2.1:5000", "10.96.0.10:53", "10.244.2.5:5353");
    assert!(keeps_port(&entry));
    entry.reply.destination = at("10.244.1.0:5000");
    assert!(keeps_port(&entry), "another address is no clash");
    entry.reply.destination = at("10.244.1.0:61000");
    assert!(!keeps_port(&entry));
}
