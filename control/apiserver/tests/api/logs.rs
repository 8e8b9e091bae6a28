//! Logs, through a node's agent.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use seaway_apiserver::pki::{Authority, Subject};
use seaway_apiserver::{Dialer, Dialing};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Api, pod};

/// Leads to the test's agent, whatever the node's address: nodes may live in another network namespace.
struct Detour(u16);

impl Dialer for Detour {
    fn dial(&self, address: std::net::SocketAddr) -> Dialing {
        assert_eq!(address.to_string(), "192.0.2.7:10250");
        let port = self.0;
        Box::pin(async move { TcpStream::connect(("127.0.0.1", port)).await })
    }
}

/// An agent with a certificate of the authority for `name`, that wants one from its clients and answers with what it
/// was asked.
async fn agent(listener: TcpListener, authority: Authority, name: &str) {
    let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let subject = Subject {
        user: "system:node:n1".into(),
        names: vec![name.into()],
        server: true,
        ..Subject::default()
    };
    let leaf = authority.issue(&subject).unwrap();
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = Router::new().fallback(async |request: Request| match request.uri().path() {
        "/containerLogs/default/quiet/c" => (
            StatusCode::BAD_REQUEST,
            "container c is waiting to start".to_owned(),
        ),
        _ => (StatusCode::OK, format!("{}\n", request.uri())),
    });
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = acceptor.accept(stream).await else {
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn cluster(certified: &'static str) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut data_dir = None;
    let api = Api::with(|config| {
        config.dialer = Arc::new(Detour(port));
        data_dir = Some(config.data_dir.clone());
    })
    .await;
    let authority = Authority::open(&data_dir.unwrap()).unwrap();
    tokio::spawn(agent(listener, authority, certified));
    api.create("/api/v1/nodes", json!({ "metadata": { "name": "n1" } }))
        .await;
    let address =
        json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }] } });
    assert_eq!(
        api.merge("/api/v1/nodes/n1/status", address).await.code,
        StatusCode::OK
    );
    for name in ["talks", "quiet"] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!("n1");
        api.create("/api/v1/namespaces/default/pods", pod).await;
    }
    api.create("/api/v1/namespaces/default/pods", pod("unbound"))
        .await;
    api
}

#[tokio::test]
async fn come_from_the_nodes_agent() {
    let api = cluster("192.0.2.7").await;
    let log = async |rest: &str| {
        api.get(&format!("/api/v1/namespaces/default/pods/{rest}"))
            .await
    };
    let answer =
        log("talks/log?follow=false&tailLines=5&sinceTime=2026-01-01T00:00:00%2B01:00&pretty=1")
            .await;
    let asked = "/containerLogs/default/talks/c?follow=false&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00%2B01%3A00\n";
    assert_eq!((answer.code, answer.text.as_str()), (StatusCode::OK, asked));
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert_eq!(
        log("quiet/log").await.failure().2,
        "container c is waiting to start"
    );
    assert_eq!(
        log("talks/log?container=x").await.failure().2,
        "container x is not valid for pod talks"
    );
    assert_eq!(
        log("unbound/log").await.failure().2,
        "pod unbound does not have a host assigned"
    );
    assert_eq!(log("none/log").await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn do_not_come_from_an_impostor() {
    let api = cluster("192.0.2.99").await;
    let answer = api.get("/api/v1/namespaces/default/pods/talks/log").await;
    assert_eq!(answer.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        answer.failure().2.contains("192.0.2.7:10250"),
        "{}",
        answer.text
    );
}
