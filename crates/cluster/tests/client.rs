//! What the API client does with a kubeconfig, against a server that writes down what it is asked.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use seaway_cluster::{describe, kube_client};

/// An HTTP server; the value of each request's `authorization`.
struct Server {
    port: u16,
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(ip: IpAddr) -> Option<Self> {
        let listener = TcpListener::bind((ip, 0)).ok()?;
        let port = listener.local_addr().unwrap().port();
        let authorizations = Arc::<Mutex<Vec<String>>>::default();
        let seen = authorizations.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.ends_with(b"\r\n\r\n") {
                    let length = stream.read(&mut buffer).unwrap();
                    if length == 0 {
                        break;
                    }
                    request.extend_from_slice(&buffer[..length]);
                }
                let request = String::from_utf8_lossy(&request).to_lowercase();
                let header = request
                    .lines()
                    .find_map(|line| line.strip_prefix("authorization: "));
                seen.lock()
                    .unwrap()
                    .push(header.unwrap_or("none").to_owned());
                let body = "{}";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Some(Self {
            port,
            authorizations,
        })
    }

    fn last(&self) -> String {
        self.authorizations.lock().unwrap().last().unwrap().clone()
    }
}

fn kubeconfig(dir: &Path, host: &str, port: u16) -> PathBuf {
    let path = dir.join("kubeconfig");
    let token = dir.join("token");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: 'http://{host}:{port}'}}}}]
users: [{{name: u, user: {{tokenFile: '{}'}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
",
        token.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

async fn ask(client: &Client) {
    let request = http::Request::get("/version").body(Vec::new()).unwrap();
    client.request_text(request).await.unwrap();
}

/// kube's cache of a token file, less what it takes as "about to end".
const TOKEN_LIFE: Duration = Duration::from_secs(51);

#[tokio::test]
async fn a_token_that_is_rotated_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Ipv4Addr::LOCALHOST.into()).unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let path = kubeconfig(dir.path(), "127.0.0.1", server.port);
    let client = kube_client(Some(&path)).await.unwrap();
    ask(&client).await;
    assert_eq!(server.last(), "bearer first");
    std::fs::write(&token, "second").unwrap();
    tokio::time::sleep(TOKEN_LIFE).await;
    ask(&client).await;
    assert_eq!(server.last(), "bearer second");
}

#[tokio::test]
async fn each_address_of_a_name_is_tried() {
    // Both families stand for the addresses of several servers: one answers, the other refuses.
    let named: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    for ip in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        if !named.iter().any(|address| address.ip() == ip) {
            eprintln!("skipped: localhost is not {ip} here");
            continue;
        }
        let Some(server) = Server::start(ip) else {
            eprintln!("skipped: no {ip} here");
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "t").unwrap();
        let path = kubeconfig(dir.path(), "localhost", server.port);
        let client = kube_client(Some(&path)).await.unwrap();
        ask(&client).await;
        assert_eq!(server.last(), "bearer t");
    }
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named() {
    let error = kube_client(Some(Path::new("/nowhere/kubeconfig")))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("/nowhere/kubeconfig"), "{error}");
}

#[tokio::test]
async fn a_server_without_a_scheme_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = kubeconfig(dir.path(), "127.0.0.1", 6443);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("http://", "")).unwrap();
    let error = kube_client(Some(&path)).await.err().unwrap().to_string();
    for part in ["\"127.0.0.1:6443\"", "https://HOST:PORT"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    let path = kubeconfig(dir.path(), "127.0.0.1", port);
    let client = kube_client(Some(&path)).await.unwrap();
    let request = http::Request::get("/version").body(Vec::new()).unwrap();
    let error = describe(&client.request_text(request).await.unwrap_err());
    let start = format!("no answer from http://127.0.0.1:{port}: ");
    assert!(error.starts_with(&start), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
}
