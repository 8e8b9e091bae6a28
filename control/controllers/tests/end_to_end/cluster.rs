//! A control plane in this process, with nodes whose agents do at once what they should.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use seaway_apiserver::allocate::{AddressRange, PortRange, Ranges};
use seaway_apiserver::{ApiServer, Config};
use seaway_controllers::ControllersConfig;
use seaway_store::{Options, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// No wait in these tests is meant to last longer than this.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Nodes whose agents are alive.
    alive: Arc<Mutex<BTreeSet<String>>>,
    agents: JoinHandle<()>,
    _stop: DropGuard,
    _dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.agents.abort();
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(ControllersConfig::default()).await
    }

    /// Starts with other settings; CIDRs and CA are filled in.
    pub(crate) async fn with(mut config: ControllersConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::memory(Options::default()).unwrap();
        let ranges = Ranges {
            services: vec![AddressRange::new("10.96.0.0/16".parse().unwrap()).unwrap()],
            node_ports: PortRange::new(30_000..=32_767).unwrap(),
        };
        let address = "127.0.0.1:6443".parse().unwrap();
        let server_config = Config::new(dir.path().to_owned(), address, ranges);
        let server = ApiServer::new(store, server_config).await.unwrap();
        let client = Client::new(server.in_process_client(), "default");
        if config.cluster_cidrs.is_empty() {
            config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
        }
        config.ca_pem = server.authority().certificate().to_owned();
        let shutdown = CancellationToken::new();
        tokio::spawn(seaway_controllers::run(
            client.clone(),
            config,
            shutdown.clone(),
        ));
        let alive = Arc::new(Mutex::default());
        let agents = tokio::spawn(agents(client.clone(), alive.clone()));
        Self {
            client,
            alive,
            agents,
            _stop: shutdown.drop_guard(),
            _dir: dir,
        }
    }

    /// Starts with ready nodes `n1`, `n2`, ...
    pub(crate) async fn with_nodes(count: usize) -> Self {
        let cluster = Self::start().await;
        for i in 1..=count {
            cluster.add_node(&format!("n{i}")).await;
        }
        cluster
    }

    pub(crate) async fn add_node(&self, name: &str) {
        let node = json!({"metadata": {"name": name}});
        self.create_cluster_scoped::<Node>(node).await;
        self.alive.lock().unwrap().insert(name.to_owned());
        let nodes: Api<Node> = Api::all(self.client.clone());
        eventually(&format!("node {name} is schedulable"), async || {
            let node = nodes.get(name).await.unwrap();
            let taints = node.spec.as_ref().and_then(|s| s.taints.clone());
            let cidr = node.spec.and_then(|s| s.pod_cidr);
            (taints.unwrap_or_default().is_empty() && cidr.is_some()).then_some(())
        })
        .await;
    }

    /// The agent dies without a word.
    pub(crate) fn kill_node(&self, name: &str) {
        self.alive.lock().unwrap().remove(name);
    }

    pub(crate) fn revive_node(&self, name: &str) {
        self.alive.lock().unwrap().insert(name.to_owned());
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let created = self
            .api::<K>(namespace)
            .create(&PostParams::default(), &object)
            .await;
        created.unwrap()
    }

    pub(crate) async fn create_cluster_scoped<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let api: Api<K> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, namespace: &str, name: &str, patch: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let params = PatchParams::default();
        let patched = self
            .api::<K>(namespace)
            .patch(name, &params, &Patch::Merge(patch))
            .await;
        patched.unwrap()
    }

    pub(crate) async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        self.api::<K>(namespace)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    /// Pods of a namespace that are not being deleted, by name, with their nodes.
    pub(crate) async fn pods(&self, namespace: &str) -> BTreeMap<String, Option<String>> {
        let pods = self.list::<Pod>(namespace).await.into_iter();
        pods.filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| (pod.metadata.name.unwrap(), pod.spec.unwrap().node_name))
            .collect()
    }
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not in {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All agents in one loop: heartbeats, Pods up, Pods away.
async fn agents(client: Client, alive: Arc<Mutex<BTreeSet<String>>>) {
    let mut addresses = BTreeMap::new();
    loop {
        let nodes = alive.lock().unwrap().clone();
        for node in &nodes {
            beat(&client, node).await;
        }
        let pods: Api<Pod> = Api::all(client.clone());
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            if node.is_some_and(|node| nodes.contains(&node)) {
                agent(&client, &pod, &mut addresses).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn beat(client: &Client, node: &str) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let nodes: Api<Node> = Api::all(client.clone());
    // Renewed ten times a second at most: the point is that it changes.
    let now = Timestamp::now().as_millisecond() / 100 * 100;
    let now = Timestamp::from_millisecond(now).unwrap();
    let renew = json!({"spec": {"holderIdentity": node, "renewTime": format!("{now:.6}")}});
    let params = PatchParams::default();
    if leases
        .patch(node, &params, &Patch::Merge(renew))
        .await
        .is_err()
    {
        let lease = json!({"metadata": {"name": node}});
        let lease = serde_json::from_value(lease).unwrap();
        let _ = leases.create(&PostParams::default(), &lease).await;
    }
    let Ok(Some(known)) = nodes.get_opt(node).await else {
        return;
    };
    let conditions = known.status.and_then(|s| s.conditions).unwrap_or_default();
    if !conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
    {
        let ready = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": Timestamp::now().to_string(),
                "lastTransitionTime": Timestamp::now().to_string()}],
            "allocatable": {"pods": "110", "cpu": "4", "memory": "8Gi"},
        }});
        let _ = nodes
            .patch_status(node, &params, &Patch::Merge(ready))
            .await;
    }
}

async fn agent(client: &Client, pod: &Pod, addresses: &mut BTreeMap<String, String>) {
    let (name, namespace) = (
        pod.metadata.name.as_deref().unwrap(),
        pod.metadata.namespace.as_deref().unwrap(),
    );
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = pods
            .delete(name, &DeleteParams::default().grace_period(0))
            .await;
        return;
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let known = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "Ready");
    if known.is_some_and(|c| c.status == "True") {
        return;
    }
    let next = addresses.len() + 1;
    let ip = addresses
        .entry(pod.metadata.uid.clone().unwrap())
        .or_insert_with(|| format!("10.244.{}.{}", next / 250, next % 250 + 1));
    let now = Timestamp::now().to_string();
    let status = json!({"status": {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": "True", "lastTransitionTime": now},
        ],
    }});
    let _ = pods
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await;
}
