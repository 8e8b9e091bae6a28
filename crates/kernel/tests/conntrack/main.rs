//! Connection tracking against the real kernel, in namespaces that are thrown away; conntrack(8) is the judge.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Instant;

use seaway_kernel::NetNs;
use seaway_kernel::conntrack::{Conntrack, Family, Filter, Flow, Status, UDP};

mod insert;

/// Where the client is, the service that is translated, and where it is translated to.
const CLIENT: &str = "10.1.1.1";
const CLIENT6: &str = "fd00:1::1";

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A namespace in which packets are tracked, and some translated.
fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let netns = NetNs::anonymous().unwrap();
    netns
        .run(|| {
            for ip in [CLIENT, "10.1.1.2", "10.1.1.3"] {
                run(&format!("ip addr add {ip}/32 dev lo"));
            }
            for ip in [CLIENT6, "fd00:1::2"] {
                run(&format!("ip addr add {ip}/128 dev lo nodad"));
            }
            NetNs::current().unwrap().await_ready().unwrap();
            run("ip route add 10.99.0.0/16 dev lo");
            run("ip route add fd00:99::/64 dev lo");
            run(
                "iptables -t nat -A OUTPUT -d 10.99.0.1 -p udp --dport 53 -j DNAT --to 10.1.1.2:5353",
            );
            run(
                "ip6tables -t nat -A OUTPUT -d fd00:99::1 -p udp --dport 53 -j DNAT --to [fd00:1::2]:5353",
            );
            run("iptables -t mangle -A OUTPUT -p udp --dport 54 -j CONNMARK --set-mark 0x70001");
            run("iptables -t raw -A OUTPUT -p udp --dport 55 -j CT --zone 5");
            test()
        })
        .unwrap()
}

/// One datagram; what it leaves in the table is the point.
fn datagram(from: &str, to: &str) {
    let socket = UdpSocket::bind(from.parse::<SocketAddr>().unwrap()).unwrap();
    socket.send_to(b"x", to).unwrap();
}

fn list(filter: &Filter) -> BTreeSet<Flow> {
    let mut flows = BTreeSet::new();
    let mut table = Conntrack::open().unwrap();
    table.list(filter, |some| flows.extend(some)).unwrap();
    flows
}

/// As conntrack(8) shows them, in what matters.
fn judge(arguments: &str) -> BTreeSet<String> {
    let shown = ["src=", "dst=", "sport=", "dport=", "mark=", "zone=", "id="];
    let words = |line: &str| {
        let words = line.split_whitespace();
        let kept = words.filter(|word| shown.iter().any(|name| word.starts_with(name)));
        kept.collect::<Vec<_>>().join(" ")
    };
    let text = run(&format!("conntrack -L -o id {arguments}"));
    text.lines().map(words).collect()
}

fn shown(flow: &Flow) -> String {
    let tuple = |t: &seaway_kernel::conntrack::Tuple| {
        let (source, destination) = (t.source, t.destination);
        format!(
            "src={} dst={} sport={} dport={}",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
    };
    let zone = match flow.zone {
        0 => String::new(),
        zone => format!(" zone={zone}"),
    };
    format!(
        "{} {} mark={}{zone} id={}",
        tuple(&flow.original),
        tuple(&flow.reply),
        flow.mark,
        flow.id
    )
}

#[test]
fn entries_are_what_the_tool_shows() {
    in_namespace(|| {
        datagram("10.1.1.1:4000", "10.99.0.1:53");
        datagram("10.1.1.1:4000", "10.99.0.1:54");
        datagram("10.1.1.1:4001", "10.1.1.3:55");
        datagram("10.1.1.1:4002", "10.1.1.3:56");
        datagram("[fd00:1::1]:4000", "[fd00:99::1]:53");
        for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
            let mut flows = list(&Filter::new(family, UDP));
            flows.extend(list(&Filter {
                zone: 5,
                ..Filter::new(family, UDP)
            }));
            let ours: BTreeSet<String> = flows.iter().map(shown).collect();
            assert_eq!(ours, judge(&format!("-p udp -f {name}")));
            let expected = if family == Family::V4 { 4 } else { 1 };
            assert_eq!(ours.len(), expected, "{ours:?}");
        }
        let marks: Vec<u32> = list(&Filter::new(Family::V4, UDP))
            .iter()
            .map(|flow| flow.mark)
            .filter(|mark| *mark != 0)
            .collect();
        assert_eq!(marks, [0x70001]);
    });
}

#[test]
fn filters_select() {
    in_namespace(|| {
        datagram("10.1.1.1:4000", "10.99.0.1:53");
        datagram("10.1.1.1:4001", "10.99.0.1:53");
        datagram("10.1.1.1:4000", "10.99.0.2:53");
        datagram("10.1.1.1:4000", "10.1.1.3:55");
        datagram("[fd00:1::1]:4000", "[fd00:99::1]:53");
        let count = |change: fn(&mut Filter)| {
            let mut filter = Filter::new(Family::V4, UDP);
            change(&mut filter);
            list(&filter).len()
        };
        assert_eq!(count(|_| {}), 3);
        assert_eq!(count(|f| f.destination = Some([10, 99, 0, 1].into())), 2);
        assert_eq!(count(|f| f.destination_port = Some(53)), 3);
        assert_eq!(count(|f| f.destination_port = Some(5353)), 0);
        assert_eq!(count(|f| f.status = Status::DESTINATION_NAT), 2);
        assert_eq!(count(|f| f.zone = 5), 1);
        assert_eq!(count(|f| f.zone = 6), 0);
        assert_eq!(count(|f| f.protocol = 6), 0);
        assert_eq!(count(|f| f.family = Family::V6), 1);
        assert_eq!(
            count(|f| {
                f.family = Family::V6;
                f.destination = Some("fd00:99::1".parse().unwrap());
                f.destination_port = Some(53);
            }),
            1
        );
    });
}

#[test]
fn a_deletion_takes_one_entry_and_never_its_successor() {
    in_namespace(|| {
        datagram("10.1.1.1:4000", "10.99.0.1:53");
        datagram("10.1.1.1:4001", "10.99.0.1:53");
        datagram("[fd00:1::1]:4000", "[fd00:99::1]:53");
        datagram("10.1.1.1:4002", "10.1.1.3:55");
        let of_port = |port| {
            let flows = list(&Filter::new(Family::V4, UDP));
            let mut flows = flows
                .into_iter()
                .filter(|f| f.original.source.port() == port);
            flows.next()
        };
        let mut table = Conntrack::open().unwrap();
        let mut expected = judge("-p udp -f ipv4");
        let first = of_port(4000).unwrap();
        assert!(table.delete(&first).unwrap());
        assert!(!table.delete(&first).unwrap(), "it is gone already");
        expected.remove(&shown(&first));
        assert_eq!(judge("-p udp -f ipv4"), expected);

        // The same client again is led elsewhere: that is another entry, whatever its id is.
        run(
            "iptables -t nat -R OUTPUT 1 -d 10.99.0.1 -p udp --dport 53 -j DNAT --to 10.1.1.3:5353",
        );
        datagram("10.1.1.1:4000", "10.99.0.1:53");
        let second = of_port(4000).unwrap();
        assert_eq!(first.original, second.original);
        assert!(!table.delete(&first).unwrap());
        assert_eq!(of_port(4000), Some(second));

        // In another family, and in another zone.
        let [v6] = list(&Filter::new(Family::V6, UDP))
            .into_iter()
            .collect::<Vec<_>>()[..]
        else {
            panic!("one entry")
        };
        assert!(table.delete(&v6).unwrap());
        let in_zone = Filter {
            zone: 5,
            ..Filter::new(Family::V4, UDP)
        };
        let [zoned] = list(&in_zone).into_iter().collect::<Vec<_>>()[..] else {
            panic!("one entry")
        };
        assert!(!table.delete(&Flow { zone: 0, ..zoned }).unwrap());
        assert!(table.delete(&zoned).unwrap());
        assert_eq!(list(&in_zone).len(), 0);
        assert_eq!(list(&Filter::new(Family::V4, UDP)).len(), 2);
    });
}

#[test]
fn a_table_is_that_of_the_namespace_where_it_was_opened() {
    let netns = NetNs::anonymous().unwrap();
    netns
        .run(|| {
            run("ip addr add 10.1.1.1/32 dev lo");
            run("iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT");
            datagram("10.1.1.1:4000", "10.1.1.1:4001");
        })
        .unwrap();
    let mut table = Conntrack::in_namespace(&netns).unwrap();
    let mut flows = Vec::new();
    let to = Filter {
        destination: Some([10, 1, 1, 1].into()),
        ..Filter::new(Family::V4, UDP)
    };
    table
        .list(&to, |some| flows.extend_from_slice(some))
        .unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].original.source.port(), 4000);
}

/// A full table is read within the time that a client waits for an answer, and without being held in memory; asked for
/// one destination the kernel is quicker by far.
#[test]
fn a_hundred_thousand_entries() {
    const SOURCES: u16 = 100;
    const DESTINATIONS: u16 = 1000;
    in_namespace(|| {
        // Takes everything in and says nothing: no errors come back.
        let _silent: Vec<_> = (1..=SOURCES)
            .map(|n| {
                let socket = UdpSocket::bind(("10.1.1.1", 10_000 + n)).unwrap();
                for port in 1..=DESTINATIONS {
                    socket.send_to(b"x", ("10.99.0.9", port)).unwrap();
                }
                socket
            })
            .collect();
        let all = Filter::new(Family::V4, UDP);
        let one = Filter {
            destination: Some([10, 99, 0, 9].into()),
            destination_port: Some(77),
            ..all
        };
        let mut table = Conntrack::open().unwrap();
        let mut timed = |filter: &Filter| {
            let (mut count, mut largest) = (0, 0);
            let started = Instant::now();
            table
                .list(filter, |flows| {
                    count += flows.len();
                    largest = largest.max(flows.len());
                })
                .unwrap();
            assert!(largest < 1000, "{largest} entries held at once");
            (count, started.elapsed())
        };
        let expected = usize::from(SOURCES) * usize::from(DESTINATIONS);
        let (count, wide) = timed(&all);
        assert!(count > expected * 99 / 100, "{count}");
        let (few, narrow) = timed(&one);
        assert_eq!(few, usize::from(SOURCES));
        println!("{count} entries listed in {wide:?}; {few} of them in {narrow:?}");
        assert!(wide.as_secs() < 10 && narrow < wide, "{wide:?} {narrow:?}");
    });
}
