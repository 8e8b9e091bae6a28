//! Two nodes of a lab, one of each mode, with a containerd each: pods that our own agent knows nothing of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seaway_kernel::{NetNs, Process, Signal};
use seaway_lab::{Lab, eventually};
use seaway_tests::require::{self, Need};
use seaway_tests::runtimes::{REFERENCE_PLUGINS, Scratch, node};
use seaway_tests::{fixture, http, trace};

use crate::containerd::Containerd;
use crate::cri::{Pod, PodConfig};
use crate::image;

const NEEDS: &[Need] = &[
    Need::Program("containerd"),
    Need::Program("ctr"),
    Need::Program("runc"),
    Need::File(image::BUSYBOX, "busybox-static"),
    Need::File("/usr/lib/cni/loopback", "containernetworking-plugins"),
];

/// For a change to be everywhere.
pub(crate) const SETTLE: Duration = Duration::from_secs(20);

/// The port of the pod that serves.
pub(crate) const PORT: u16 = 8080;

/// The port of the node that leads to it.
const HOST_PORT: u16 = 18080;

/// A node, and what was there before its runtime did anything.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) netns: NetNs,
    address: IpAddr,
    conf: PathBuf,
    bin: PathBuf,
    state: PathBuf,
    before: BTreeSet<String>,
    pub(crate) runtime: Containerd,
}

/// Runs `test` over two nodes; afterwards both have to be as they were.
pub(crate) async fn with_nodes(test: impl AsyncFnOnce(&Lab, &mut [Node; 2]) -> Result<()>) {
    if !require::met(require::LAB) || !require::met(NEEDS) {
        return;
    }
    fixture::with_lab(fixture::one_of_each_mode(), async |lab| {
        let scratch = Scratch::new("runtimes")?;
        let image = image::build(scratch.path())?;
        let first = Node::start(lab, "n1", scratch.path(), &image).await?;
        let mut nodes = [first, Node::start(lab, "n2", scratch.path(), &image).await?];
        test(lab, &mut nodes).await?;
        for node in nodes {
            node.end().await?;
        }
        Ok(())
    })
    .await;
}

impl Node {
    async fn start(lab: &Lab, name: &str, scratch: &Path, image: &Path) -> Result<Self> {
        let netns = lab.node(name)?.netns().clone();
        let files = lab.node_files(name);
        let (conf, bin) = (files.join("cni-conf"), files.join("cni-bin"));
        // containerd gives every pod a loopback by a plugin, too.
        let loopback = Path::new(REFERENCE_PLUGINS).join("loopback");
        std::os::unix::fs::symlink(loopback, bin.join("loopback"))?;
        let before = trace::of_namespace(&netns).await?;
        let runtime = Containerd::start(&netns, &scratch.join(name), &conf, &bin, image).await?;
        let address = lab.config().nodes.iter().find(|node| node.name == name);
        Ok(Self {
            name: name.to_owned(),
            netns,
            address: address.context("no such node")?.address(),
            conf,
            bin,
            state: files.join("state"),
            before,
            runtime,
        })
    }

    /// A pod whose container serves its own name by HTTP.
    pub(crate) async fn serve(&mut self, wanted: PodConfig) -> Result<Pod> {
        let script = format!("hostname > /www/index.html; exec httpd -f -p {PORT} -h /www");
        let pod = self.runtime.run_pod(wanted).await?;
        let mut cri = self.runtime.cri.clone();
        cri.run_command(&pod, &["sh", "-c", &script]).await?;
        Ok(pod)
    }

    /// A pod whose container does what it is told.
    pub(crate) async fn client(&mut self, name: &str) -> Result<(Pod, String)> {
        let pod = self.runtime.run_pod(named(name)).await?;
        let mut cri = self.runtime.cri.clone();
        let container = cri.run_command(&pod, &["sleep", "86400"]).await?;
        Ok((pod, container))
    }

    /// What a container fetches.
    pub(crate) async fn fetch(&self, container: &str, from: SocketAddr) -> Result<String> {
        let url = format!("http://{from}/");
        let mut cri = self.runtime.cri.clone();
        let (code, said) = cri
            .exec(container, &["wget", "-q", "-O", "-", &url])
            .await?;
        ensure!(code == 0, "{url} from {}: {code} {said}", self.name);
        Ok(said.trim().to_owned())
    }

    /// The containers that have an address of this node, and which.
    async fn owners(&self) -> Result<BTreeMap<String, IpAddr>> {
        let owners = node::owners(&self.bin.join("seaway-cni"), &self.state).await?;
        Ok(owners.into_iter().collect())
    }

    /// From here on this is what has to be there at the end.
    pub(crate) async fn remember(&mut self) -> Result<()> {
        self.before = trace::of_namespace(&self.netns).await?;
        Ok(())
    }

    async fn end(self) -> Result<()> {
        let owners = self.owners().await?;
        ensure!(
            owners.is_empty(),
            "{}: addresses are left: {owners:?}",
            self.name
        );
        self.runtime.stop()?;
        trace::is_again(&self.netns, &self.before)
            .await
            .with_context(|| self.name.clone())
    }
}

pub(crate) fn named(name: &str) -> PodConfig {
    PodConfig {
        name: name.to_owned(),
        ..PodConfig::default()
    }
}

/// A Service at a fixed address, with these pods behind.
pub(crate) fn service(endpoints: &[(&str, &Pod)]) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  clusterIP: 10.96.7.7
  ports: [{{port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: '', protocol: TCP, port: {PORT}}}]
endpoints:
"
    );
    for (node, pod) in endpoints {
        let ip = pod.ip;
        text +=
            &format!("- {{addresses: ['{ip}'], nodeName: {node}, conditions: {{ready: true}}}}\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_containerd_reach_each_other_and_a_service_across_nodes() {
    with_nodes(async |lab, [n1, n2]| {
        for node in [&mut *n1, &mut *n2] {
            eventually("the network is ready", SETTLE, async || {
                let ready = node.runtime.cri.network_ready().await;
                ready.and_then(|ready| ready.then_some(()).context("not ready"))
            })
            .await?;
        }
        let web1 = PodConfig {
            host_ports: vec![(HOST_PORT, PORT)],
            ..named("web-1")
        };
        let web = [n1.serve(web1).await?, n2.serve(named("web-2")).await?];
        let clients = [n1.client("client-1").await?, n2.client("client-2").await?];
        for (node, (_, client)) in [&*n1, &*n2].into_iter().zip(&clients) {
            for (pod, name) in web.iter().zip(["web-1", "web-2"]) {
                let from = SocketAddr::new(pod.ip, PORT);
                let answer = eventually("a pod answers", SETTLE, async || {
                    node.fetch(client, from).await
                });
                assert_eq!(answer.await?, name);
            }
        }
        let manifest = service(&[("n1", &web[0]), ("n2", &web[1])]);
        let applied = lab.kubectl_with(&manifest, ["apply", "-f", "-"]).await?;
        ensure!(applied.code == Some(0), "{}", applied.stderr);
        let frontend = "10.96.7.7:80".parse()?;
        for (node, (_, client)) in [&*n1, &*n2].into_iter().zip(&clients) {
            let mut seen = BTreeSet::new();
            eventually("both pods answer for the Service", SETTLE, async || {
                seen.insert(node.fetch(client, frontend).await?);
                ensure!(seen.len() == 2, "only {seen:?}");
                anyhow::Ok(())
            })
            .await?;
            assert_eq!(seen, BTreeSet::from(["web-1".into(), "web-2".into()]));
        }
        // From the other node, and from a machine that is none.
        let port = SocketAddr::new(n1.address, HOST_PORT);
        for netns in [&n2.netns, lab.outside()?.netns()] {
            let answer = eventually("the port of the node answers", SETTLE, async || {
                http::get(netns, port)
            });
            assert_eq!(answer.await?, "web-1");
        }
        lab.kubectl_ok(["delete", "service/web", "endpointslice/web-1"])
            .await?;
        let [pods1, pods2]: [Vec<Pod>; 2] = {
            let [web1, web2] = web;
            let [(client1, _), (client2, _)] = clients;
            [vec![web1, client1], vec![web2, client2]]
        };
        n1.runtime.end_pods(&pods1).await?;
        n2.runtime.end_pods(&pods2).await?;
        let after = http::get(&n2.netns, port);
        ensure!(after.is_err(), "the port still answers {after:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_of_containerd_come_at_once_and_go_at_once() {
    with_nodes(async |_, [node, _]| {
        let pods = node.runtime.run_pods(50).await?;
        let addresses: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
        assert_eq!(addresses.len(), 50, "{pods:?}");
        assert_eq!(node.owners().await?.len(), 50);
        node.runtime.end_pods(&pods).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_was_deleted_behind_containerds_back_leaves_nothing() {
    with_nodes(async |_, [_, node]| {
        let pod = node.runtime.run_pod(named("victim")).await?;
        let kept = node.runtime.run_pod(named("bystander")).await?;
        assert_eq!(node.owners().await?.len(), 2);
        // The process that holds it goes, too: else the namespace lives on without its name.
        let inside = node.runtime.pids_in(&pod)?;
        ensure!(!inside.is_empty(), "nothing runs in the pod");
        NetNs::delete(&pod.netns)?;
        for pid in inside {
            if let Some(process) = Process::open(pid)? {
                process.signal(Signal::Kill)?;
            }
        }
        node.runtime.end_pods(std::slice::from_ref(&pod)).await?;
        let owners = BTreeMap::from([(kept.sandbox.id.clone(), kept.ip)]);
        assert_eq!(node.owners().await?, owners);
        node.runtime.end_pods(&[kept]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_ctr_on_two_nodes_reach_each_other() {
    with_nodes(async |_, [n1, n2]| {
        let scratch = Scratch::new("ctr")?;
        let mut running = Vec::new();
        for node in [&*n1, &*n2] {
            let id = format!("ctr-{}-{}", node.name, std::process::id());
            let log = scratch.path().join(&id);
            let script = format!(
                "echo {} > /www/index.html; exec httpd -f -p {PORT} -h /www",
                node.name
            );
            let command = ["sh", "-c", &script];
            let child = node
                .runtime
                .ctr_run_cni(&id, &node.conf, &node.bin, &command, &log)?;
            running.push((node, id, child, log));
        }
        for (node, id, _, log) in &running {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            let address = eventually("ctr has an address", SETTLE, async || {
                let owners = node.owners().await?;
                owners
                    .get(&format!("default-{id}"))
                    .copied()
                    .with_context(said)
            })
            .await?;
            for from in [&*n1, &*n2] {
                let answer = eventually("the container answers", SETTLE, async || {
                    http::get(&from.netns, SocketAddr::new(address, PORT))
                });
                assert_eq!(answer.await?, node.name);
            }
        }
        for (node, id, mut child, log) in running {
            let kill = ["tasks", "kill", "--signal=SIGKILL", &id];
            node.runtime.ctr(&kill).output().await?;
            child.wait()?;
            let owners = node.owners().await?;
            let said = std::fs::read_to_string(log)?;
            ensure!(owners.is_empty(), "{owners:?}, and ctr said {said}");
        }
        Ok(())
    })
    .await;
}
