//! The endpoint over real TLS, with certificates made here.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::pod::facts::{ContainerFacts, Facts};
use crate::records::Store;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority {
        pem,
        issuer: Issuer::new(params, key),
    }
}

impl Authority {
    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        Identity {
            authority: self.pem.clone().into_bytes(),
            certificate: params
                .signed_by(&key, &self.issuer)
                .unwrap()
                .pem()
                .into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }
}

async fn get(
    address: SocketAddr,
    cluster: &Identity,
    client: Option<&Identity>,
    path: &str,
) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&cluster.authority).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(&identity.certificate).unwrap()],
                PrivateKeyDer::from_pem_slice(&identity.key).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn logs_over_mutual_tls() {
    let directory = TempDir::new().unwrap();
    let dir = Store::open(directory.path()).unwrap().pod("u1");
    std::fs::write(dir.prepare_log("web", 1).unwrap(), "one\ntwo\n").unwrap();
    let pod = serde_json::json!({"metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"}});
    let container = ContainerFacts {
        attempt: 1,
        ..ContainerFacts::default()
    };
    let facts = Facts {
        containers: [("web".to_owned(), container)].into(),
        ..Facts::default()
    };
    let registry = Registry::default();
    registry.publish(&serde_json::from_value(pod).unwrap(), &dir, &facts);

    let cluster = authority();
    let (node, caller, stranger) = (cluster.issue(), cluster.issue(), authority().issue());
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &node, registry)
        .await
        .unwrap();
    let address = server.address().unwrap();
    let serving = tokio::spawn(server.serve());

    let ask = |path: &'static str| get(address, &node, Some(&caller), path);
    let healthy = ask("/healthz").await.unwrap();
    assert!(
        healthy.starts_with("HTTP/1.1 200") && healthy.ends_with("ok"),
        "{healthy}"
    );
    let log = ask("/containerLogs/shop/web-1/web?tailLines=1&follow=true")
        .await
        .unwrap();
    assert!(
        log.contains("content-type: text/plain") && log.contains("two\n") && !log.contains("one"),
        "{log}"
    );
    for (path, code) in [
        ("/containerLogs/shop/other/web", "404"),
        ("/containerLogs/shop/web-1/other", "400"),
        ("/containerLogs/shop/web-1/..%2F..%2Fx", "400"),
        ("/containerLogs/shop/web-1/web?tailLines=x", "400"),
        ("/other", "404"),
    ] {
        let answer = ask(path).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{path}: {answer}"
        );
    }
    assert!(
        get(address, &node, None, "/healthz").await.is_err(),
        "no certificate"
    );
    assert!(
        get(address, &node, Some(&stranger), "/healthz")
            .await
            .is_err(),
        "another CA"
    );
    serving.abort();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(address, &authority().issue(), Registry::default())
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().starts_with(&format!(
            "cannot listen on {address}: Address already in use"
        )),
        "{error}"
    );
}
