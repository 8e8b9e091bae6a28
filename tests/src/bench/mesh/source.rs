//! Where the overlay has its Nodes from.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use seaway_kernel::NetNs;
use seaway_lab::eventually;
use serde_json::{Value, json};

use crate::bench::server::{self, Home, Server};
use crate::runtimes::Scratch;

/// For the API server's first answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files, looked at from time to time.
    Manifests,
    /// `seaway server`, which tells of a change at once.
    Api,
}

/// The place where a Node is put and changed.
pub(super) enum Source {
    Manifests(PathBuf),
    Api(Box<Served>),
}

/// An API server, gone when dropped.
pub(super) struct Served {
    _server: Server,
    kubeconfig: PathBuf,
    nodes: Api<NodeObject>,
}

impl Source {
    /// An empty one for the daemon in a namespace, gone when dropped.
    pub(super) async fn new(kind: Kind, files: &Scratch, netns: &NetNs) -> Result<Self> {
        if kind == Kind::Manifests {
            let place = files.path().join("manifests");
            fs::create_dir(&place).context("create a directory")?;
            return Ok(Self::Manifests(place));
        }
        let home = Home {
            files: files.path(),
            netns,
            cgroup: None,
        };
        let flags = [
            "--cluster-cidr=10.0.0.0/8",
            "--service-cidr=192.168.0.0/16",
            // Nobody speaks for the Nodes, and that is no change of them.
            "--node-monitor-grace-period=3600s",
        ];
        let (server, kubeconfig) = Server::start(home, &flags.map(str::to_owned)).await?;
        let client = Client::try_from(server::config(&kubeconfig).await?)?;
        eventually("an answer of the API server", LIMIT, async || {
            client.apiserver_version().await
        })
        .await?;
        Ok(Self::Api(Box::new(Served {
            _server: server,
            kubeconfig,
            nodes: Api::all(client),
        })))
    }

    /// The flag by which the daemon finds it.
    pub(super) fn flag(&self) -> String {
        match self {
            Self::Manifests(place) => format!("--manifests={}", place.display()),
            Self::Api(served) => format!("--kubeconfig={}", served.kubeconfig.display()),
        }
    }

    /// Puts a Node there.
    pub(super) async fn declare(
        &self,
        name: &str,
        address: Ipv4Addr,
        pods: Ipv4Addr,
    ) -> Result<()> {
        if let Self::Api(served) = self {
            let object = serde_json::from_value(object(name, address, pods))?;
            let created = served.nodes.create(&PostParams::default(), &object).await;
            created.with_context(|| format!("create Node {name}"))?;
        }
        self.change(name, address, pods).await
    }

    /// Gives a Node that is there an address. An API server has answered then, and may have told the daemon before.
    pub(super) async fn change(&self, name: &str, address: Ipv4Addr, pods: Ipv4Addr) -> Result<()> {
        let object = object(name, address, pods);
        match self {
            Self::Manifests(place) => {
                let hidden = place.with_file_name("hidden");
                fs::write(&hidden, object.to_string()).context("write a manifest")?;
                let file = place.join(format!("{name}.json"));
                fs::rename(hidden, file).context("put a manifest in place")
            }
            Self::Api(served) => {
                let patch = Patch::Merge(json!({ "status": object["status"] }));
                let params = PatchParams::default();
                let patched = served.nodes.patch_status(name, &params, &patch).await;
                patched
                    .map(drop)
                    .with_context(|| format!("change Node {name}"))
            }
        }
    }
}

fn object(name: &str, address: Ipv4Addr, pods: Ipv4Addr) -> Value {
    let cidr = format!("{pods}/24");
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name },
        "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        "status": { "addresses": [{ "type": "InternalIP", "address": address.to_string() }] },
    })
}
