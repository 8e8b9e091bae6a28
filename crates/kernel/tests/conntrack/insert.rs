//! Entries that are inserted: the kernel has to translate by them as by its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use seaway_kernel::conntrack::{
    Conntrack, Family, Filter, NewFlow, Status, TCP, TcpState, Tuple, UDP,
};

use super::{in_namespace, judge, list, run};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `client` knocks at `service`; `backend` answers, and takes `seen` for the client.
fn flow(
    protocol: u8,
    client: SocketAddr,
    service: &str,
    backend: SocketAddr,
    seen: SocketAddr,
) -> NewFlow {
    NewFlow {
        protocol,
        original: Tuple {
            source: client,
            destination: at(service),
        },
        reply: Tuple {
            source: backend,
            destination: seen,
        },
        tcp: (protocol == TCP).then_some(TcpState::Established),
        answered: true,
        timeout: Duration::from_secs(100),
    }
}

/// One datagram there and one back; whom the backend took for the client.
fn exchange(client: &UdpSocket, backend: &UdpSocket) -> SocketAddr {
    client.send(b"ping").unwrap();
    let mut buffer = [0; 16];
    let (length, seen) = backend.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    backend.send_to(b"pong", seen).unwrap();
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"pong");
    seen
}

fn socket(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

#[test]
fn datagrams_are_translated_both_ways_as_an_inserted_entry_says() {
    in_namespace(|| {
        let mut table = Conntrack::open().unwrap();
        for (family, client, service, backend, seen) in [
            (
                Family::V4,
                "10.1.1.1:4000",
                "10.99.0.7:70",
                "10.1.1.2:7000",
                "10.1.1.1:4000",
            ),
            (
                Family::V4,
                "10.1.1.1:4001",
                "10.99.0.7:70",
                "10.1.1.2:7001",
                "10.1.1.3:20001",
            ),
            (
                Family::V6,
                "[fd00:1::1]:4000",
                "[fd00:99::7]:70",
                "[fd00:1::2]:7000",
                "[fd00:1::1]:4000",
            ),
            (
                Family::V6,
                "[fd00:1::1]:4001",
                "[fd00:99::7]:70",
                "[fd00:1::2]:7001",
                "[fd00:1::2]:20001",
            ),
        ] {
            let (from, to) = (socket(client), socket(backend));
            from.connect(service).unwrap();
            let new = flow(UDP, at(client), service, at(backend), at(seen));
            assert!(table.insert(&new).unwrap());
            assert!(!table.insert(&new).unwrap(), "it is there already");
            // No rule leads there: only the entry does.
            assert_eq!(exchange(&from, &to), at(seen), "{client}");
            let there = list(&Filter {
                destination_port: Some(70),
                ..Filter::new(family, UDP)
            });
            let entry = there
                .iter()
                .find(|flow| flow.original.source == at(client))
                .unwrap();
            assert_eq!((entry.original, entry.reply), (new.original, new.reply));
            assert!(entry.status.contains(Status::DESTINATION_NAT));
            assert!(entry.status.contains(Status::ASSURED));
            assert_eq!(entry.status.contains(Status::SOURCE_NAT), seen != client);
        }
        assert_eq!(judge("-p udp -f ipv4 --dport 70").len(), 2);
    });
}

/// A connection in mid-air whose entry is lost and comes back by us: not a byte is missing, although the kernel knows
/// nothing of its windows.
#[test]
fn a_connection_goes_on_by_an_inserted_entry() {
    in_namespace(|| {
        let mut table = Conntrack::open().unwrap();
        for (tool, family, service, backend, masquerade) in [
            (
                "iptables",
                Family::V4,
                "10.99.0.8:80",
                "10.1.1.2:8000",
                None,
            ),
            (
                "iptables",
                Family::V4,
                "10.99.0.8:80",
                "10.1.1.2:8001",
                Some("10.1.1.3:20002"),
            ),
            (
                "ip6tables",
                Family::V6,
                "[fd00:99::8]:80",
                "[fd00:1::2]:8000",
                None,
            ),
        ] {
            let (to, service_at) = (at(backend), at(service));
            let rule = format!(
                "-d {} -p tcp --dport 80 -j DNAT --to {backend}",
                service_at.ip()
            );
            run(&format!("{tool} -t nat -A OUTPUT {rule}"));
            let snat = masquerade.map(|to| {
                format!(
                    "-d {} -p tcp --dport {} -j SNAT --to {to}",
                    at(backend).ip(),
                    at(backend).port()
                )
            });
            if let Some(snat) = &snat {
                run(&format!("{tool} -t nat -A POSTROUTING {snat}"));
            }
            let listener = TcpListener::bind(to).unwrap();
            let mut client = TcpStream::connect(service_at).unwrap();
            let (mut server, seen) = listener.accept().unwrap();
            let mut say = |client: &mut TcpStream, bytes: usize| {
                let data = vec![7; bytes];
                client.write_all(&data).unwrap();
                let mut back = vec![0; bytes];
                server.read_exact(&mut back).unwrap();
                server.write_all(&back).unwrap();
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, data);
            };
            say(&mut client, 20_000);

            run(&format!("{tool} -t nat -D OUTPUT {rule}"));
            if let Some(snat) = &snat {
                run(&format!("{tool} -t nat -D POSTROUTING {snat}"));
            }
            let to_service = Filter {
                destination_port: Some(80),
                ..Filter::new(family, TCP)
            };
            let found = list(&to_service);
            let own = found.iter().find(|flow| flow.reply.source == to).unwrap();
            assert_eq!(own.tcp, Some(TcpState::Established));
            assert!(table.delete(own).unwrap());
            let new = flow(TCP, client.local_addr().unwrap(), service, to, seen);
            assert_eq!((new.original, new.reply), (own.original, own.reply));
            assert!(table.insert(&new).unwrap());
            say(&mut client, 50_000);
            say(&mut client, 1);
            let after = list(&to_service);
            let after = after.iter().find(|flow| flow.reply.source == to).unwrap();
            assert_eq!(
                (after.original, after.reply, after.tcp),
                (new.original, new.reply, new.tcp)
            );
        }
    });
}

#[test]
fn what_stands_in_the_way_of_an_entry_is_replaced() {
    in_namespace(|| {
        let mut table = Conntrack::open().unwrap();
        let (client, backend) = (socket("10.1.1.1:4005"), socket("10.1.1.2:7005"));
        // The client talks to the backend itself, so that what the backend sends belongs to that entry.
        client.connect("10.1.1.2:7005").unwrap();
        exchange(&client, &backend);
        let new = flow(
            UDP,
            at("10.1.1.1:4005"),
            "10.99.0.7:70",
            at("10.1.1.2:7005"),
            at("10.1.1.1:4005"),
        );
        assert!(!table.insert(&new).unwrap());
        assert!(table.replace(&new).unwrap());
        client.connect("10.99.0.7:70").unwrap();
        assert_eq!(exchange(&client, &backend), at("10.1.1.1:4005"));
        assert!(table.evict(UDP, &new.reply).unwrap());
        assert!(!table.evict(UDP, &new.reply).unwrap(), "it is gone already");
    });
}

/// The window of a connection of which packets went another way is unknown; its entry says so once it is told.
#[test]
fn an_entry_is_told_not_to_mind_the_window() {
    in_namespace(|| {
        let listener = TcpListener::bind("10.1.1.2:9000").unwrap();
        let _client = TcpStream::connect("10.1.1.2:9000").unwrap();
        let _server = listener.accept().unwrap();
        let mut table = Conntrack::open().unwrap();
        let own = list(&Filter {
            destination_port: Some(9000),
            ..Filter::new(Family::V4, TCP)
        });
        let own = own.first().unwrap();
        assert!(table.be_liberal(own).unwrap());
        assert!(table.delete(own).unwrap());
        assert!(!table.be_liberal(own).unwrap(), "it is gone");
    });
}
