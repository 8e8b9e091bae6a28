//! Our daemons in the containers of their DaemonSets, with what these grant and nothing else.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use seaway_kernel::Netlink;
use seaway_lab::{Daemon, Lab, eventually};
use seaway_model::ownership::{RUN_DIR, VXLAN_LINK};
use seaway_tests::runtimes::Scratch;

use crate::cri::{PodConfig, Sandbox};
use crate::manifest::{Host, Manifest, document, write_config};
use crate::nodes::{Node, PORT, SETTLE, named, service, with_nodes};

/// A daemon in its container, in place of the lab's.
struct Deployed {
    daemon: Daemon,
    sandbox: Sandbox,
}

fn host(lab: &Lab, node: &str, daemon: &Daemon, config: &Path) -> Result<Host> {
    let files = lab.node_files(node);
    // kubelet makes it where it is missing (`FileOrCreate`).
    OpenOptions::new()
        .create(true)
        .append(true)
        .open("/run/xtables.lock")?;
    Ok(Host {
        name: node.to_owned(),
        binaries: lab.config().binaries.clone(),
        flags: flags(lab, node, daemon)?,
        cluster_cidr: lab.config().cluster_cidr(),
        own: vec![
            ("/etc/cni/net.d", files.join("cni-conf")),
            ("/opt/cni/bin", files.join("cni-bin")),
            (RUN_DIR, files.join("run")),
            ("/sys/fs/cgroup", lab.name().cgroup()?.join(node)),
        ],
        same: vec![files],
        config: config.to_owned(),
    })
}

/// Beside what the manifest says: that the machine is shared by two nodes, and the lab has no service accounts.
fn flags(lab: &Lab, node: &str, daemon: &Daemon) -> Result<Vec<String>> {
    let flag = |flag, path: &Path| format!("--{flag}={}", path.display());
    let files = lab.node_files(node);
    let run_dir = flag("run-dir", &files.join("run"));
    Ok(match daemon {
        Daemon::Overlay(_) => vec![
            run_dir,
            flag("state-dir", &files.join("state")),
            flag("kubeconfig", &files.join("kubeconfig")),
        ],
        Daemon::Proxy(_) => vec![run_dir, flag("bpffs-root", &lab.name().bpffs(node))],
        other => bail!("{} has no DaemonSet", other.id()),
    })
}

/// Ends the lab's daemon and takes all that it made away: what comes next is made by the container.
async fn clear(lab: &Lab, node: &str, daemon: &Daemon) -> Result<()> {
    lab.stop(daemon).await?;
    let cleanup = match daemon {
        Daemon::Proxy(_) => lab.proxy_cleanup(node).await?,
        _ => {
            let files = lab.node_files(node);
            let flag = |flag, directory| format!("--{flag}={}", files.join(directory).display());
            let places = [flag("cni-conf-dir", "cni-conf"), flag("run-dir", "run")];
            let args = ["cleanup".to_owned()].into_iter().chain(places);
            let program = lab.config().binaries.join("seaway-overlay");
            lab.node(node)?.run(program, args).await?
        }
    };
    ensure!(cleanup.code == Some(0), "{}", cleanup.stderr);
    Ok(())
}

impl Deployed {
    /// Starts the containers of a kustomization on a node, and waits until the daemon is in sync.
    async fn start(
        lab: &Lab,
        node: &mut Node,
        daemon: Daemon,
        kustomization: &str,
        scratch: &Path,
    ) -> Result<Self> {
        clear(lab, &node.name, &daemon).await?;
        let logs = scratch.join(&node.name);
        let config = scratch.join(format!("config-{}", node.name));
        if let Daemon::Proxy(_) = daemon {
            write_config(&document("base/configmap.yaml")?, &config)?;
            let kubeconfig = lab.node_files(&node.name).join("kubeconfig");
            std::fs::copy(kubeconfig, config.join("kubeconfig.conf"))?;
        }
        let host = host(lab, &node.name, &daemon, &config)?;
        let manifest = Manifest::read(kustomization)?;
        let wanted = PodConfig {
            host_network: true,
            privileged: manifest.is_privileged(),
            logs: logs.display().to_string(),
            ..named(manifest.program()?)
        };
        let sandbox = node.runtime.run_sandbox(wanted).await?;
        let said = |name: &str| {
            let log = logs.join(format!("{name}.log"));
            std::fs::read_to_string(log).unwrap_or_default()
        };
        let mut cri = node.runtime.cri.clone();
        for init in manifest.init() {
            let config = manifest.config(init, &host)?;
            let id = cri.run_container(&sandbox, &init.name, config).await?;
            let code = eventually("the first container has ended", SETTLE, async || {
                cri.clone().exit_code(&id).await?.context("it runs")
            });
            ensure!(code.await? == 0, "{}", said(&init.name));
        }
        let container = manifest.daemon();
        let config = manifest.config(container, &host)?;
        cri.run_container(&sandbox, &container.name, config).await?;
        let synced = lab.in_sync(&daemon).await;
        synced.with_context(|| said(&container.name))?;
        Ok(Self { daemon, sandbox })
    }

    /// Gives the node back to the lab's own daemon.
    async fn end(self, lab: &Lab, node: &Node) -> Result<()> {
        node.runtime.cri.clone().end(&self.sandbox).await?;
        Ok(lab.start(&self.daemon).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_serves_from_the_containers_of_its_daemon_set() {
    with_nodes(async |lab, [n1, n2]| {
        let scratch = Scratch::new("deployed")?;
        let overlay = Daemon::Overlay(n1.name.clone());
        let deployed = Deployed::start(lab, n1, overlay, "overlay", scratch.path()).await?;
        let device = Netlink::in_namespace(&n1.netns)?.link(VXLAN_LINK).await?;
        ensure!(device.is_some(), "there is no device");
        // It is another one now.
        n1.remember().await?;

        let web = [
            n1.serve(named("web-1")).await?,
            n2.serve(named("web-2")).await?,
        ];
        let clients = [n1.client("client-1").await?, n2.client("client-2").await?];
        for (node, (_, client)) in [&*n1, &*n2].into_iter().zip(&clients) {
            for (pod, name) in web.iter().zip(["web-1", "web-2"]) {
                let answer = eventually("a pod answers", SETTLE, async || {
                    node.fetch(client, (pod.ip, PORT).into()).await
                });
                assert_eq!(answer.await?, name);
            }
        }
        let [web1, web2] = web;
        let [(client1, _), (client2, _)] = clients;
        n1.runtime.end_pods(&[web1, client1]).await?;
        n2.runtime.end_pods(&[web2, client2]).await?;
        deployed.end(lab, n1).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_both_modes_serve_from_the_containers_of_their_daemon_sets() {
    with_nodes(async |lab, [n1, n2]| {
        let scratch = Scratch::new("deployed")?;
        let mut deployed = Vec::new();
        for (node, kustomization) in [(&mut *n1, "base"), (&mut *n2, "ebpf")] {
            let proxy = Daemon::Proxy(node.name.clone());
            let started = Deployed::start(lab, node, proxy, kustomization, scratch.path());
            deployed.push(started.await?);
        }
        let web = n1.serve(named("web-1")).await?;
        let clients = [n1.client("client-1").await?, n2.client("client-2").await?];
        let manifest = service(&[("n1", &web)]);
        let applied = lab.kubectl_with(&manifest, ["apply", "-f", "-"]).await?;
        ensure!(applied.code == Some(0), "{}", applied.stderr);
        let frontend = "10.96.7.7:80".parse()?;
        for (node, (_, client)) in [&*n1, &*n2].into_iter().zip(&clients) {
            let answer = eventually("the Service answers", SETTLE, async || {
                node.fetch(client, frontend).await
            });
            assert_eq!(answer.await?, "web-1");
        }
        lab.kubectl_ok(["delete", "service/web", "endpointslice/web-1"])
            .await?;
        let [(client1, _), (client2, _)] = clients;
        n1.runtime.end_pods(&[web, client1]).await?;
        n2.runtime.end_pods(&[client2]).await?;
        for (node, deployed) in [&*n1, &*n2].into_iter().zip(deployed) {
            deployed.end(lab, node).await?;
        }
        Ok(())
    })
    .await;
}
