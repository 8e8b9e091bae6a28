//! A server per test.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use seaway_apiserver::allocate::{AddressRange, PortRange, Ranges};
use seaway_apiserver::{ApiServer, Config};
use seaway_store::{Options, Store};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Nothing here takes longer, on a machine however busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Api {
    pub(crate) server: ApiServer,
    pub(crate) store: Store,
    _dir: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Code, reason and message of a failure.
    pub(crate) fn failure(&self) -> (u16, String, String) {
        let body = self.json();
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        (self.code.as_u16(), text("reason"), text("message"))
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    let ranges = Ranges {
        services: vec![AddressRange::new("10.96.0.0/24".parse().unwrap()).unwrap()],
        node_ports: PortRange::new(30_000..=30_099).unwrap(),
    };
    Config::new(dir.to_owned(), "192.0.2.1:6443".parse().unwrap(), ranges)
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::memory(Options::default()).unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let server = ApiServer::new(store.clone(), config).await.unwrap();
        Self {
            server,
            store,
            _dir: dir,
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self
            .server
            .in_process_client()
            .oneshot(request)
            .await
            .unwrap();
        let (code, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        Answer {
            code,
            headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// A POST that must succeed.
    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let answer = self.send("POST", path, &[], &body.to_string()).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.text);
        answer.json()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], &body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[], &body.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, body: Value) -> Answer {
        self.send(
            "PATCH",
            path,
            &[("content-type", "application/merge-patch+json")],
            &body.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str, options: Value) -> Answer {
        self.send("DELETE", path, &[], &options.to_string()).await
    }

    /// Opens a watch; the answer must be 200.
    pub(crate) async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Frames {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self
            .server
            .in_process_client()
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        Frames {
            body: response.into_body().into_data_stream(),
            rest: Vec::new(),
        }
    }
}

/// The frames of a watch.
pub(crate) struct Frames {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Frames {
    /// The next frame; none when the server ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next())
                .await
                .expect("a frame in time")?;
            self.rest.extend_from_slice(&chunk.unwrap());
        }
    }

    /// Type, name and resourceVersion of the next frame.
    pub(crate) async fn event(&mut self) -> (String, String, u64) {
        let frame = self.next().await.expect("a frame");
        let metadata = &frame["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&metadata["resourceVersion"])
            .parse()
            .unwrap_or_default();
        (text(&frame["type"]), text(&metadata["name"]), version)
    }

    /// Nothing comes for a while.
    pub(crate) async fn quiet(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(150), self.next()).await;
        assert!(next.is_err(), "unexpected {next:?}");
    }
}

pub(crate) fn config_map(name: &str, labels: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name }, "data": { "key": "value" } });
    object["metadata"]["labels"] = labels;
    object
}

pub(crate) fn pod(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "seaway.dev/pause" }] } })
}

pub(crate) fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name } });
    object["spec"] = spec;
    object
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// A server on TLS, with a store on disk, that can be stopped and started again on the same port.
pub(crate) struct Served {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    running: Option<(CancellationToken, JoinHandle<()>, Store)>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut served = Self {
            dir,
            port: listener.local_addr().unwrap().port(),
            running: None,
        };
        served.serve(listener).await;
        served
    }

    async fn serve(&mut self, listener: TcpListener) {
        let store = Store::open(self.dir.path(), Options::default()).unwrap();
        let mut config = config(self.dir.path());
        config.admin_server = Some(self.url());
        let server = ApiServer::new(store.clone(), config).await.unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { server.serve(vec![listener], token).await.unwrap() });
        self.running = Some((shutdown, task, store));
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn stop(&mut self) {
        let (shutdown, task, store) = self.running.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
        drop(store);
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        // The old connections are gone; the port itself may linger for a moment.
        let address = format!("127.0.0.1:{}", self.port);
        let mut listener = TcpListener::bind(&address);
        for _ in 0..50 {
            if listener.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            listener = TcpListener::bind(&address);
        }
        self.serve(listener.unwrap()).await;
    }

    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    pub(crate) async fn client(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }
}
