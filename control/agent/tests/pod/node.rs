//! A node for tests: the supervisor with everything real but the API and the plugin.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use kube::client::Body;
use seaway_agent::events::Recorder;
use seaway_agent::logs::Registry;
use seaway_agent::pod::task::Context;
use seaway_agent::records::{PodDir, Store};
use seaway_agent::sandbox::Sandboxes;
use seaway_agent::{node::boot_id, supervisor};
use seaway_kernel::{NetNs, Process, Signal, cgroup};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// A Pod of one container `main`; its uid is its name.
pub(crate) fn pod(name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "any", "command": command}]},
        "status": {"phase": "Pending"},
    })
}

/// What the API holds and has been told.
#[derive(Debug, Clone, Default)]
struct Told {
    pods: Vec<Value>,
    status: Value,
    events: Vec<String>,
    deleted: Vec<String>,
    version: u64,
}

type Api = Arc<watch::Sender<Told>>;

pub(crate) struct TestNode {
    directory: TempDir,
    prefix: String,
    cgroup: PathBuf,
    api: Api,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl TestNode {
    pub(crate) async fn start(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let id = format!("swat{}{name}", std::process::id());
        let node = Self {
            cgroup: cgroup::mount_point().unwrap().join(&id),
            prefix: format!("{id}-"),
            directory,
            api: Arc::new(watch::Sender::new(Told::default())),
            supervisor: Mutex::new(None),
        };
        cgroup::create(&node.cgroup).unwrap();
        node.write_plugin();
        node.resume().await;
        node
    }

    fn write_plugin(&self) {
        let script = format!(
            r#"#!/bin/sh
dir={}
cat > /dev/null
echo "$CNI_COMMAND" >> "$dir/calls"
if [ "$CNI_COMMAND" = ADD ]; then
    if [ -f "$dir/broken" ]; then cat "$dir/broken"; exit 1; fi
    echo '{{"cniVersion":"1.1.0","ips":[{{"address":"10.244.9.5/32"}}]}}'
fi
"#,
            self.directory.path().display()
        );
        let plugin = self.directory.path().join("fake");
        fs::write(&plugin, script).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let list = r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "fake"}]}"#;
        fs::write(self.directory.path().join("10-pods.conflist"), list).unwrap();
    }

    /// Starts the supervisor, as a new agent would.
    pub(crate) async fn resume(&self) {
        let here = self.directory.path().to_owned();
        let client = Client::new(tower::service_fn(answer(self.api.clone())), "default");
        let node_ips = vec!["127.0.0.1".parse().unwrap()];
        let context = Context {
            recorder: Recorder::start(client.clone(), "n1".to_owned()),
            client,
            node_name: "n1".to_owned(),
            node_ips: node_ips.clone(),
            cgroup_root: self.cgroup.clone(),
            program: "/bin/false".into(),
            store: Store::open(&here).unwrap(),
            sandboxes: Sandboxes::new(here.clone(), here, self.prefix.clone(), boot_id(), node_ips),
            logs: Registry::default(),
        };
        let task = tokio::spawn(supervisor::run(Arc::new(context)));
        *self.supervisor.lock().unwrap() = Some(task);
    }

    /// Drops the supervisor where it stands, as `kill -9` would.
    pub(crate) async fn stop(&self) {
        let task = self.supervisor.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.api.send_modify(|told| told.status = Value::Null);
        self.resume().await;
    }

    pub(crate) fn apply(&self, pod: &Value) {
        self.api.send_modify(|told| {
            told.version += 1;
            let mut pod = pod.clone();
            pod["metadata"]["resourceVersion"] = told.version.to_string().into();
            told.pods
                .retain(|other| other["metadata"]["name"] != pod["metadata"]["name"]);
            told.pods.push(pod);
        });
    }

    pub(crate) fn forget_in_api(&self, name: &str) {
        self.api
            .send_modify(|told| told.pods.retain(|pod| pod["metadata"]["name"] != name));
    }

    pub(crate) fn status(&self) -> Value {
        self.api.borrow().status.clone()
    }

    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) {
        self.until_told(what, |told| reached(&told.status)).await;
    }

    pub(crate) async fn until_deleted(&self, name: &str) {
        self.until_told("deleted from the API", |told| {
            told.deleted.iter().any(|deleted| deleted == name)
        })
        .await;
    }

    pub(crate) async fn until_event(&self, reason: &str, part: &str) {
        let found = |told: &Told| {
            told.events
                .iter()
                .any(|e| e.starts_with(reason) && e.contains(part))
        };
        self.until_told(reason, found).await;
    }

    async fn until_told(&self, what: &str, reached: impl Fn(&Told) -> bool) {
        let mut told = self.api.subscribe();
        let waited = tokio::time::timeout(PATIENCE, told.wait_for(|told| reached(told)))
            .await
            .is_ok();
        assert!(waited, "not {what}: {:#?}", self.api.borrow());
    }

    async fn until_true(&self, what: &str, reached: impl Fn() -> bool) {
        let begin = Instant::now();
        while !reached() {
            assert!(begin.elapsed() < PATIENCE, "not {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_log(&self, pod: &str, container: &str, attempt: u32, want: &str) {
        let path = self.dir(pod).log(container, attempt);
        self.until_true(want, || {
            fs::read_to_string(&path).is_ok_and(|text| text == want)
        })
        .await;
    }

    pub(crate) async fn until_forgotten(&self, uid: &str) {
        let records = self.directory.path().join("pods").join(uid);
        self.until_true("forgotten", || !records.exists()).await;
    }

    fn dir(&self, uid: &str) -> PodDir {
        Store::open(self.directory.path()).unwrap().pod(uid)
    }

    pub(crate) fn netns(&self, uid: &str) -> Option<String> {
        self.dir(uid).sandbox()?.netns
    }

    pub(crate) fn pid(&self, uid: &str, container: &str) -> Option<u32> {
        Some(self.dir(uid).containers().get(container)?.process?.pid)
    }

    pub(crate) fn cgroup_processes(&self, uid: &str, container: &str) -> Vec<u32> {
        cgroup::processes(&self.cgroup.join("pods").join(uid).join(container)).unwrap_or_default()
    }

    /// Kills a process of ours and waits until it is gone.
    pub(crate) fn kill(&self, pid: u32) {
        let process = Process::open(pid).unwrap().unwrap();
        process.signal(Signal::Kill).unwrap();
        assert!(process.wait_exit(Duration::from_secs(5)).unwrap());
    }

    pub(crate) fn plugin_calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    pub(crate) fn break_plugin(&self, error: &str) {
        fs::write(self.directory.path().join("broken"), error).unwrap();
    }

    pub(crate) fn mend_plugin(&self) {
        fs::remove_file(self.directory.path().join("broken")).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.file(name), "").unwrap();
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Ok(Some(task)) = self.supervisor.lock().map(|mut task| task.take()) {
            task.abort();
        }
        // An aborted task ends at its next await: until then it may make a cgroup or start a process once more.
        let begin = Instant::now();
        let mut quiet = 0;
        while quiet < 3 && begin.elapsed() < Duration::from_secs(5) {
            let _ = cgroup::kill(&self.cgroup);
            let there = self.cgroup.exists();
            let gone = cgroup::delete(&self.cgroup).is_ok();
            quiet = if there || !gone { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(20));
        }
        for name in NetNs::list().unwrap_or_default() {
            if name.starts_with(&self.prefix) {
                let _ = NetNs::delete(&name);
            }
        }
    }
}

type Content = BoxBody<bytes::Bytes, std::io::Error>;

type Answer =
    std::pin::Pin<Box<dyn Future<Output = Result<Response<Content>, std::io::Error>> + Send>>;

/// The API: lists Pods, streams their changes, takes notes of what it is told.
fn answer(api: Api) -> impl FnMut(Request<Body>) -> Answer {
    move |request| {
        let api = api.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let name = parts
                .uri
                .path()
                .trim_end_matches("/status")
                .rsplit('/')
                .next();
            let name = name.unwrap_or_default().to_owned();
            Ok(match parts.method.as_str() {
                "GET" => return Ok(Response::new(watch_pods(&api))),
                "PATCH" if parts.uri.path().ends_with("/status") => {
                    api.send_modify(|told| {
                        told.status = body["status"].clone();
                        // As a real API: the next watch event carries the new status.
                        for pod in &mut told.pods {
                            if pod["metadata"]["name"] == name {
                                pod["status"] = body["status"].clone();
                            }
                        }
                    });
                    reply(&pod(&name, &[]))
                }
                "DELETE" => {
                    assert_eq!(body["gracePeriodSeconds"], 0);
                    assert_eq!(body["preconditions"]["uid"], name);
                    api.send_modify(|told| {
                        told.pods.retain(|pod| pod["metadata"]["name"] != name);
                        told.deleted.push(name.clone());
                    });
                    reply(&pod(&name, &[]))
                }
                _ => {
                    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                    api.send_modify(|told| {
                        told.events
                            .push(format!("{}: {}", text("reason"), text("message")));
                    });
                    reply(&body)
                }
            })
        })
    }
}

fn reply(value: &Value) -> Response<Content> {
    let bytes = bytes::Bytes::from(value.to_string());
    Response::new(BodyExt::boxed(
        http_body_util::Full::new(bytes).map_err(|never| match never {}),
    ))
}

/// A streaming list of the Pods, then every one again after each change of their specs.
fn watch_pods(api: &Api) -> Content {
    let changes = api.subscribe();
    let state = (changes, None::<u64>, Vec::<String>::new());
    let lines = futures::stream::unfold(state, |(mut changes, seen, known)| async move {
        if let Some(seen) = seen {
            changes
                .wait_for(|told| told.version != seen || told.pods.len() != known.len())
                .await
                .ok()?;
        }
        let told = changes.borrow_and_update().clone();
        let name = |pod: &Value| {
            pod["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let names: Vec<String> = told.pods.iter().map(name).collect();
        let mut text = String::new();
        for pod in &told.pods {
            text += &format!("{}\n", json!({"type": "ADDED", "object": pod}));
        }
        for gone in known.iter().filter(|gone| !names.contains(gone)) {
            let mut object = pod(gone, &[]);
            object["metadata"]["resourceVersion"] = "999".into();
            text += &format!("{}\n", json!({"type": "DELETED", "object": object}));
        }
        if seen.is_none() {
            let end = json!({"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}});
            let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": end});
            text += &format!("{}\n", json!({"type": "BOOKMARK", "object": bookmark}));
        }
        let frame = http_body::Frame::data(bytes::Bytes::from(text));
        Some((frame, (changes, Some(told.version), names)))
    });
    BodyExt::boxed(StreamBody::new(lines.map(Ok)))
}
