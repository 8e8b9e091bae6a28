use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ask::{Target, ask};
use super::*;

fn read(probe: &Value) -> Result<Spec, String> {
    let container: Container = serde_json::from_value(json!({
        "name": "web", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe,
    }))
    .unwrap();
    spec(&container, container.readiness_probe.as_ref().unwrap())
}

fn a_spec(success: u32, failure: u32) -> Spec {
    Spec {
        success_threshold: success,
        failure_threshold: failure,
        ..read(&json!({"tcpSocket": {"port": 1}})).unwrap()
    }
}

#[test]
fn defaults_and_named_ports() {
    let tcp = read(&json!({"tcpSocket": {"port": "http"}})).unwrap();
    assert_eq!(
        tcp.check,
        Check::Tcp {
            host: None,
            port: 8080
        }
    );
    assert_eq!(
        (tcp.initial_delay, tcp.period, tcp.timeout),
        (
            Duration::ZERO,
            Duration::from_secs(10),
            Duration::from_secs(1),
        )
    );
    assert_eq!((tcp.success_threshold, tcp.failure_threshold), (1, 3));
    let http =
        read(&json!({"httpGet": {"port": 80}, "periodSeconds": 2, "initialDelaySeconds": 5}))
            .unwrap();
    assert!(matches!(http.check, Check::Http { port: 80, ref path, .. } if path == "/"));
    assert_eq!(
        (http.period, http.initial_delay),
        (Duration::from_secs(2), Duration::from_secs(5))
    );
    for (probe, want) in [
        (
            json!({"tcpSocket": {"port": "nope"}}),
            "the container has no port named \"nope\"",
        ),
        (json!({"tcpSocket": {"port": 70000}}), "70000 is not a port"),
        (
            json!({"grpc": {"port": 1}}),
            "only tcpSocket, httpGet and exec are supported by this agent",
        ),
        (
            json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}),
            "httpGet with scheme HTTPS is not supported by this agent",
        ),
        (json!({"exec": {}}), "exec.command: Required value"),
    ] {
        assert_eq!(read(&probe).unwrap_err(), want, "{probe}");
    }
}

#[test]
fn thresholds_count_answers_in_a_row() {
    let mut judge = Judge::new(&a_spec(2, 3), false);
    let answers = [
        true, false, true, true, true, false, false, true, false, false, false, true,
    ];
    let changes: Vec<Option<bool>> = answers
        .into_iter()
        .map(|answer| judge.take(answer))
        .collect();
    let mut want = vec![None; 12];
    want[3] = Some(true);
    want[10] = Some(false);
    assert_eq!(changes, want);
}

#[test]
fn probes_come_fast_until_the_first_success() {
    let mut judge = Judge::new(&a_spec(1, 3), false);
    let mut millis = Vec::new();
    for _ in 0..10 {
        judge.take(false);
        millis.push(judge.interval().as_millis());
    }
    assert_eq!(
        millis,
        [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
    );
    judge.take(true);
    assert_eq!(judge.interval(), Duration::from_secs(10));
    let mut adopted = Judge::new(&a_spec(1, 3), true);
    assert_eq!(adopted.interval(), Duration::from_secs(10));
}

fn target() -> Target {
    Target {
        ip: "127.0.0.1".parse().unwrap(),
        netns: seaway_kernel::NetNs::current().unwrap(),
        env: vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("X".to_owned(), "y".to_owned()),
        ],
        cgroup: seaway_kernel::cgroup::own().unwrap(),
    }
}

/// Answers each connection with `reply`; returns the port.
async fn serve(reply: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn asks_over_tcp_and_http() {
    let limit = Duration::from_secs(2);
    let ok = serve("HTTP/1.1 204 No Content\r\n\r\n").await;
    let bad = serve("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    let odd = serve("SSH-2.0-x\r\n").await;
    let http = |port| Check::Http {
        host: None,
        port,
        path: "healthz".to_owned(),
        headers: vec![("X-A".to_owned(), "b".to_owned())],
    };
    let target = target();
    assert_eq!(
        ask(
            &Check::Tcp {
                host: None,
                port: ok
            },
            &target,
            limit
        )
        .await,
        Ok(())
    );
    assert_eq!(ask(&http(ok), &target, limit).await, Ok(()));
    let failed = ask(&http(bad), &target, limit).await.unwrap_err();
    assert_eq!(failed, "HTTP probe failed with statuscode: 503");
    let failed = ask(&http(odd), &target, limit).await.unwrap_err();
    assert_eq!(failed, "malformed HTTP response \"SSH-2.0-x\"");
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let failed = ask(
        &Check::Tcp {
            host: None,
            port: closed,
        },
        &target,
        limit,
    )
    .await
    .unwrap_err();
    assert!(failed.contains("refused"), "{failed}");
}

#[tokio::test]
async fn asks_by_running_a_program() {
    let run = |script: &str| Check::Exec {
        command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
    };
    let target = target();
    let limit = Duration::from_secs(5);
    assert_eq!(ask(&run("test \"$X\" = y"), &target, limit).await, Ok(()));
    let failed = ask(&run("echo not yet; exit 1"), &target, limit)
        .await
        .unwrap_err();
    assert!(failed.contains("not yet"), "{failed}");
    let slow = ask(&run("sleep 5"), &target, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(slow.contains("did not finish"), "{slow}");
}
