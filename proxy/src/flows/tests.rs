use std::time::{Duration, SystemTime};

use expect_test::expect;
use proptest::prelude::*;
use seaway_ebpf_abi::event::{EVENT_FAR, EVENT_NODE_PORT, EVENT_SOCKET};
use seaway_ebpf_abi::flow::{
    FLOW_NODE_PORT, FLOW_REVERSE, STATE_ESTABLISHED, STATE_OPENED, STATE_REPLIED, STATE_RESET,
};
use seaway_ebpf_abi::{Addr, Event, FlowKey, FlowValue, TCP, UDP, Verdict};
use seaway_kernel::conntrack::{Flow, Status, TcpState, Tuple};
use seaway_model::testing::plain;
use seaway_model::{Family, InputEvent, Inputs, NodeSettings, Protocol, ServicePort, derive_all};

use super::*;

const NODE: &str = "192.168.77.1";

/// `default/web` with cluster IP 10.96.0.10, port 80 and node port 30080.
fn names() -> Names {
    let port = ServicePort {
        node_port: Some(30080),
        ..plain::port("http", Protocol::Tcp, 80)
    };
    let service = plain::service("web", vec!["10.96.0.10".parse().unwrap()], vec![port]);
    let target = plain::target("http", Protocol::Tcp, 8080);
    let endpoint = plain::endpoint("10.244.1.5".parse().unwrap(), "", Some("n1"));
    let slice = plain::slice("web-1", "web", Family::V4, target, vec![endpoint]);
    let mut inputs = Inputs::default();
    for event in [
        InputEvent::Service(service.key.clone(), Some(service)),
        InputEvent::Slice(slice.key.clone(), Some(slice)),
    ] {
        inputs.apply(event);
    }
    let (desired, _) = derive_all(&inputs, &NodeSettings::new("n1"));
    Names::of(&desired)
}

fn addr(ip: &str) -> Addr {
    ip.parse::<IpAddr>().unwrap().into()
}

fn clock() -> Clock {
    Clock {
        monotonic: 100_000_000_000,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

fn event(verdict: Verdict, frontend: (&str, u16), flags: u8) -> Event {
    Event {
        at: 99_750_000_000,
        netns: if flags & EVENT_SOCKET != 0 { 1 } else { 0 },
        client: addr("192.168.77.200"),
        frontend: addr(frontend.0),
        client_port: 40_000_u16.to_be(),
        frontend_port: frontend.1.to_be(),
        verdict: verdict as u32,
        protocol: TCP,
        flags,
        ..Event::default()
    }
}

fn answered(event: Event, source: (&str, u16)) -> Event {
    Event {
        source: addr(source.0),
        source_port: source.1.to_be(),
        backend: addr("10.244.1.5"),
        backend_port: 8080_u16.to_be(),
        ..event
    }
}

#[test]
fn what_happens_is_told_in_one_line() {
    let far = EVENT_FAR | EVENT_NODE_PORT;
    let socket = |event: Event, netns| Event {
        client: Addr::ANY_V4,
        client_port: 0,
        netns,
        ..event
    };
    let cluster_ip = ("10.96.0.10", 80);
    let begun = event(Verdict::NewFlow, (NODE, 30080), far);
    let connect = event(Verdict::SocketConnect, cluster_ip, EVENT_SOCKET);
    let events = [
        answered(begun, ("10.244.1.0", 61_000)),
        answered(
            Event {
                verdict: Verdict::FlowClosed as u32,
                ..begun
            },
            ("10.244.1.0", 61_000),
        ),
        socket(answered(connect, ("0.0.0.0", 0)), 1),
        socket(answered(connect, ("0.0.0.0", 0)), 77),
        event(Verdict::Rejected, ("10.96.0.10", 81), 0),
        event(Verdict::DroppedSource, ("192.0.2.1", 80), EVENT_FAR),
        answered(
            event(Verdict::TooLarge, cluster_ip, 0),
            ("192.168.77.200", 40_000),
        ),
        // From another build.
        Event {
            verdict: 4711,
            protocol: 132,
            ..event(Verdict::NewFlow, cluster_ip, 0)
        },
    ];
    let names = names();
    let lines: Vec<String> = events
        .iter()
        .map(|event| Happened::new(event, clock(), &names, 1).to_string())
        .collect();
    expect![[r#"
        07:59:59.750 begin    default/web tcp 192.168.77.200:40000 -> 192.168.77.1:30080 => 10.244.1.5:8080 as 10.244.1.0:61000, external
        07:59:59.750 end      default/web tcp 192.168.77.200:40000 -> 192.168.77.1:30080 => 10.244.1.5:8080 as 10.244.1.0:61000, external
        07:59:59.750 begin    default/web tcp socket of the node -> 10.96.0.10:80 => 10.244.1.5:8080, internal
        07:59:59.750 begin    default/web tcp socket in namespace 77 -> 10.96.0.10:80 => 10.244.1.5:8080, internal
        07:59:59.750 refused  default/web tcp 192.168.77.200:40000 -> 10.96.0.10:81, internal: no_endpoint
        07:59:59.750 dropped  - tcp 192.168.77.200:40000 -> 192.0.2.1:80, external: source_range
        07:59:59.750 answered default/web tcp 192.168.77.200:40000 -> 10.96.0.10:80 => 10.244.1.5:8080, internal: too_large
        07:59:59.750 unknown  default/web sctp 192.168.77.200:40000 -> 10.96.0.10:80, internal"#]]
    .assert_eq(&lines.join("\n"));

    let json = Happened::new(&events[0], clock(), &names, 1).json();
    expect![[r#"{"backend":"10.244.1.5:8080","client":"192.168.77.200:40000","direction":"external","event":"begin","frontend":"192.168.77.1:30080","networkNamespace":null,"protocol":"tcp","reason":null,"seenBy":"packet","service":"default/web","source":"10.244.1.0:61000","time":"2027-01-15T07:59:59.750000Z","verdict":"new_flow"}"#]]
    .assert_eq(&json.to_string());
}

fn table_flow(protocol: u8, state: u8, frontend: (&str, u16), flags: u8) -> (FlowKey, FlowValue) {
    let key = FlowKey {
        src: addr("192.168.77.200"),
        dst: addr(frontend.0),
        sport: 40_000_u16.to_be(),
        dport: frontend.1.to_be(),
        protocol,
        pad: [0; 3],
    };
    let flow = FlowValue {
        last_seen: 90_000_000_000,
        src: addr("192.168.77.200"),
        dst: addr("10.244.1.5"),
        sport: 40_000_u16.to_be(),
        dport: 8080_u16.to_be(),
        state,
        flags,
        ..FlowValue::default()
    };
    (key, flow)
}

/// A flow looks the same in both modes, but for the times, which connection tracking keeps to itself.
#[test]
fn both_modes_list_flows_in_the_same_words() {
    let names = names();
    let established = STATE_OPENED | STATE_REPLIED | STATE_ESTABLISHED;
    let cases = [
        (TCP, established, Some(TcpState::Established), (NODE, 30080)),
        (
            TCP,
            STATE_OPENED,
            Some(TcpState::SynSent),
            ("10.96.0.10", 80),
        ),
        (TCP, STATE_RESET, Some(TcpState::Close), ("10.96.0.10", 80)),
    ];
    let mut lines = Vec::new();
    for (protocol, state, tcp, frontend) in cases {
        let flags = if frontend.0 == NODE {
            FLOW_NODE_PORT
        } else {
            0
        };
        let (key, flow) = table_flow(protocol, state, frontend, flags);
        let ours = Entry::of_table(&key, &flow, 100_000_000_000, &names).unwrap();
        let tuple = |source: SocketAddr, destination: SocketAddr| Tuple {
            source,
            destination,
        };
        let client: SocketAddr = "192.168.77.200:40000".parse().unwrap();
        let backend: SocketAddr = "10.244.1.5:8080".parse().unwrap();
        let tracked = Flow {
            protocol,
            original: tuple(
                client,
                SocketAddr::new(frontend.0.parse().unwrap(), frontend.1),
            ),
            reply: tuple(backend, client),
            status: Status(Status::DESTINATION_NAT.0 | Status::SEEN_REPLY.0),
            tcp,
            mark: 0,
            zone: 0,
            id: 0,
        };
        let is_node = |ip: &IpAddr| ip.to_string() == NODE;
        let theirs = Entry::of_conntrack(&tracked, &names, is_node).unwrap();
        let (ours, theirs) = (ours.to_string(), theirs.to_string());
        assert_eq!(ours.split(", silent").next(), Some(theirs.as_str()));
        lines.push(ours);
        let elsewhere = Flow {
            status: Status::SEEN_REPLY,
            ..tracked
        };
        assert_eq!(Entry::of_conntrack(&elsewhere, &names, is_node), None);
    }
    expect![[r#"
        default/web tcp 192.168.77.200:40000 -> 192.168.77.1:30080 => 10.244.1.5:8080 established, silent 10 s, expires in 86390 s
        default/web tcp 192.168.77.200:40000 -> 10.96.0.10:80 => 10.244.1.5:8080 syn_sent, silent 10 s, expires in 110 s
        default/web tcp 192.168.77.200:40000 -> 10.96.0.10:80 => 10.244.1.5:8080 reset, silent 10 s, expires in 0 s"#]]
    .assert_eq(&lines.join("\n"));
    let (key, flow) = table_flow(UDP, 0, (NODE, 30080), FLOW_REVERSE);
    assert_eq!(Entry::of_table(&key, &flow, 0, &names), None);
}

proptest! {
    /// The ring buffer and the flow table are what the kernel says they are: whatever is in them is shown somehow.
    #[test]
    fn foreign_bytes_are_shown_somehow(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        now in any::<u64>(),
        monotonic in any::<u64>(),
    ) {
        let event = Event::read(&bytes);
        prop_assert_eq!(event.is_some(), bytes.len() >= size_of::<Event>());
        let Some(event) = event else { return Ok(()) };
        let clock = Clock { monotonic, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(now % (1 << 40)) };
        let names = Names::default();
        let happened = Happened::new(&event, clock, &names, 1);
        prop_assert!(!happened.to_string().contains('\n'));
        prop_assert!(happened.json().is_object());

        let key = FlowKey {
            src: event.client,
            dst: event.frontend,
            sport: event.client_port,
            dport: event.frontend_port,
            protocol: event.protocol,
            pad: [0; 3],
        };
        let flow = FlowValue {
            last_seen: event.at,
            src: event.source,
            dst: event.backend,
            state: event.flags,
            flags: event.pad[0],
            ..FlowValue::default()
        };
        if let Some(entry) = Entry::of_table(&key, &flow, now, &names) {
            prop_assert!(!entry.to_string().contains('\n'));
            prop_assert!(entry.json().is_object());
        }
    }
}
