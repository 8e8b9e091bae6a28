use super::*;
use crate::traffic::answer::Identity;
use crate::traffic::echo::EchoServer;

fn probe(transport: Transport, target: SocketAddr) -> Probe {
    Probe {
        transport,
        target: SocketAddr::new([127, 0, 0, 1].into(), target.port()),
        count: Some(5),
        interval: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        keep: false,
    }
}

async fn server() -> (SocketAddr, SocketAddr) {
    let identity = Identity {
        pod: "web-1".into(),
        node: "n1".into(),
    };
    let server = EchoServer::bind(identity, 0, 0).await.unwrap();
    let addrs = (server.tcp_addr().unwrap(), server.udp_addr().unwrap());
    tokio::spawn(server.serve());
    addrs
}

#[tokio::test]
async fn every_request_is_answered_by_name() {
    let (tcp, udp) = server().await;
    for (transport, addr) in [(Transport::Tcp, tcp), (Transport::Udp, udp)] {
        for keep in [false, true] {
            let probe = Probe {
                keep,
                ..probe(transport, addr)
            };
            let mut seen = Vec::new();
            let summary = probe
                .run(|a| seen.push(a.clone()), std::future::pending())
                .await;
            assert_eq!(
                (summary.sent, summary.answered),
                (5, 5),
                "{transport:?} {summary:?}"
            );
            assert_eq!(summary.pods["web-1"], 5);
            let answer = seen[0].answer.as_ref().unwrap();
            assert_eq!(answer.node, "n1");
            assert!(answer.peer.ip().is_loopback());
        }
    }
}

#[tokio::test]
async fn refusal_and_silence_are_told_apart() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let refused = probe(Transport::Tcp, addr)
        .run(|_| {}, std::future::pending())
        .await;
    assert_eq!(refused.errors["connection refused"], 5, "{refused:?}");

    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut probe = probe(Transport::Udp, silent.local_addr().unwrap());
    probe.timeout = Duration::from_millis(50);
    let summary = probe.run(|_| {}, std::future::pending()).await;
    assert_eq!(summary.errors["no answer within 50 ms"], 5, "{summary:?}");
}

#[tokio::test]
async fn an_endless_probe_ends_when_it_is_told_to() {
    let (tcp, _) = server().await;
    let mut probe = probe(Transport::Tcp, tcp);
    probe.count = None;
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let each = |attempt: &Attempt| {
        if attempt.n >= 3
            && let Some(tell) = tell.take()
        {
            tell.send(()).unwrap();
        }
    };
    let summary = probe
        .run(each, async {
            let _ = told.await;
        })
        .await;
    assert!(summary.sent >= 3);
    assert_eq!(summary.failed, 0, "{summary:?}");
}

#[tokio::test]
async fn http_gets_an_http_answer() {
    use tokio::io::AsyncReadExt as _;
    let (tcp, _) = server().await;
    let mut stream = TcpStream::connect(("127.0.0.1", tcp.port())).await.unwrap();
    stream
        .write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("\"pod\":\"web-1\""), "{text}");
}
