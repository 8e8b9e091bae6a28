use std::net::{Ipv4Addr, SocketAddr};

use expect_test::expect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

struct World {
    checks: HealthChecks,
    failures: mpsc::UnboundedReceiver<Failure>,
    health: Health,
}

fn world() -> World {
    let (sender, failures) = mpsc::unbounded_channel();
    let health = Health::default();
    health.synced(SystemTime::now());
    let checks = HealthChecks::start(Addresses::All, health.clone(), sender);
    World {
        checks,
        failures,
        health,
    }
}

fn service(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn check(port: u16, local_ready: usize) -> Option<HealthCheck> {
    Some(HealthCheck { port, local_ready })
}

async fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = "GET /anything HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(
        text.lines()
            .filter(|line| !line.starts_with("date:"))
            .collect::<Vec<_>>()
            .join("\n"),
    )
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Asks until the answer is as wanted.
async fn until(address: SocketAddr, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
    for _ in 0..400 {
        let answer = ask(address).await;
        if wanted(answer.as_deref()) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("last answer: {:?}", ask(address).await);
}

fn is_ok(answer: Option<&str>) -> bool {
    answer.is_some_and(|text| text.starts_with("HTTP/1.1 200"))
}

#[tokio::test]
async fn the_answer_is_kube_proxys() {
    let world = world();
    let port = free_port();
    world.checks.set(&service("web"), check(port, 2));
    let answer = until(local(port), is_ok).await.unwrap();
    expect![[r#"
        HTTP/1.1 200 OK
        content-type: application/json
        x-content-type-options: nosniff
        x-load-balancing-endpoint-weight: 2
        content-length: 94
        connection: close

        {"localEndpoints":2,"service":{"name":"web","namespace":"default"},"serviceProxyHealthy":true}"#]]
    .assert_eq(&answer);
}

#[tokio::test]
async fn both_families_are_served() {
    let world = world();
    let port = free_port();
    world.checks.set(&service("web"), check(port, 1));
    until(local(port), is_ok).await;
    let v6 = SocketAddr::new("::1".parse().unwrap(), port);
    assert!(is_ok(ask(v6).await.as_deref()));
}

#[tokio::test]
async fn no_endpoints_here_or_an_unhealthy_proxy_is_503() {
    let world = world();
    let port = free_port();
    world.checks.set(&service("web"), check(port, 1));
    until(local(port), is_ok).await;

    world.checks.set(&service("web"), check(port, 0));
    let answer = until(local(port), |a| !is_ok(a)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"localEndpoints\":0"), "{answer}");

    world.checks.set(&service("web"), check(port, 1));
    until(local(port), is_ok).await;
    world.health.waiting(SystemTime::UNIX_EPOCH);
    let answer = until(local(port), |a| !is_ok(a)).await.unwrap();
    assert!(answer.contains("\"serviceProxyHealthy\":false"), "{answer}");
}

#[tokio::test]
async fn a_draining_node_still_says_what_it_has() {
    let world = world();
    let port = free_port();
    world.checks.set(&service("web"), check(port, 1));
    until(local(port), is_ok).await;
    world.health.draining(true);
    assert!(is_ok(ask(local(port)).await.as_deref()));
}

#[tokio::test]
async fn the_listener_follows_the_port_and_goes_with_the_service() {
    let world = world();
    let (first, second) = (free_port(), free_port());
    world.checks.set(&service("web"), check(first, 1));
    until(local(first), is_ok).await;
    world.checks.set(&service("web"), check(second, 1));
    until(local(second), is_ok).await;
    until(local(first), |answer| answer.is_none()).await;
    world.checks.set(&service("web"), None);
    until(local(second), |answer| answer.is_none()).await;
}

#[tokio::test]
async fn of_two_services_with_one_port_the_second_is_reported_and_served_when_the_first_goes() {
    let mut world = world();
    let port = free_port();
    world.checks.set(&service("a"), check(port, 1));
    world.checks.set(&service("b"), check(port, 7));
    // Again, with another count: no second report.
    world.checks.set(&service("b"), check(port, 8));
    let failure = world.failures.recv().await.unwrap();
    assert_eq!(
        (failure.service, failure.port, failure.reason.as_str()),
        (service("b"), port, "Service default/a has the same port")
    );
    world.checks.set(&service("a"), None);
    until(local(port), |answer| {
        answer.is_some_and(|text| text.contains("\"localEndpoints\":8"))
    })
    .await;
    assert!(world.failures.try_recv().is_err());
}

#[tokio::test]
async fn a_port_that_a_stranger_has_is_reported_and_tried_again() {
    let mut world = world();
    let stranger = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = stranger.local_addr().unwrap().port();
    world.checks.set(&service("web"), check(port, 1));
    let failure = world.failures.recv().await.unwrap();
    assert!(failure.reason.contains("in use"), "{}", failure.reason);
    drop(stranger);
    // Any other change would do it at once; here it is the timer.
    for _ in 0..10 {
        if is_ok(ask(local(port)).await.as_deref()) {
            return;
        }
        tokio::time::sleep(RETRY / 5).await;
    }
    panic!("never tried again");
}

#[tokio::test]
async fn chosen_addresses_are_the_only_ones() {
    let (sender, _failures) = mpsc::unbounded_channel();
    let health = Health::default();
    health.synced(SystemTime::now());
    let only = Addresses::Only(vec!["127.0.0.2".parse().unwrap()]);
    let checks = HealthChecks::start(only, health, sender);
    let port = free_port();
    checks.set(&service("web"), check(port, 1));
    until(SocketAddr::new("127.0.0.2".parse().unwrap(), port), is_ok).await;
    assert_eq!(ask(local(port)).await, None);
}
