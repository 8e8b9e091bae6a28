//! `kill -9` of any daemon at any time: under load, nothing is lost; started again, it adopts what is there.

use std::time::Duration;

use anyhow::{Result, ensure};
use seaway_lab::traffic::{Load, Transport};
use seaway_lab::{Daemon, Lab};
use seaway_tests::{fixture, reach, require, trace, workload};

/// Between two requests of a load.
const PACE: Duration = Duration::from_millis(10);

/// Requests that must have an outcome before, during and after a daemon is away.
const STRETCH: u64 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_proxy_loses_no_request() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        // n1 is in mode iptables, n2 in mode ebpf.
        for node in ["n1", "n2"] {
            let before = trace::rules(Some(lab.node(node)?.netns())).await?;
            killed_under_load(lab, node, &Daemon::Proxy(node.into())).await?;
            let after = trace::rules(Some(lab.node(node)?.netns())).await?;
            ensure!(
                before == after,
                "rules of {node} changed:\n{before}\n---\n{after}"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_while_a_proxy_was_dead_is_applied_when_it_is_back() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        let service = workload::cluster_ip(lab, "echo").await?;
        for (node, replicas) in [("n1", 4), ("n2", 5)] {
            let proxy = Daemon::Proxy(node.into());
            let client = lab.pod(&format!("client-{node}")).await?;
            let before = workload::replicas(lab).await?;
            reach::reaches(&client, Transport::Tcp, service, &before).await?;
            let load = client.load(Transport::Tcp, service, PACE)?;
            load.more(STRETCH).await?;
            lab.kill(&proxy).await?;
            let scale = format!("--replicas={replicas}");
            lab.kubectl_ok(["scale", "deployment/echo", &scale]).await?;
            workload::rolled_out(lab).await?;
            let after = workload::replicas(lab).await?;
            ensure!(after.len() == replicas, "{after:?}");
            // Nobody told this node yet: it goes on with what it has.
            load.more(STRETCH).await?;
            reach::reaches(&client, Transport::Tcp, service, &before).await?;
            lab.start(&proxy).await?;
            reach::reaches(&client, Transport::Tcp, service, &after).await?;
            let what = format!("while {} was away", proxy.id());
            reach::nothing_lost(&what, &load.stop().await?)?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_an_overlay_loses_no_request() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        for node in ["n1", "n2"] {
            killed_under_load(lab, node, &Daemon::Overlay(node.into())).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_an_agent_keeps_its_pods() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        let before = workload::replicas(lab).await?;
        for node in ["n1", "n2"] {
            killed_under_load(lab, node, &Daemon::Agent(node.into())).await?;
        }
        let after = workload::replicas(lab).await?;
        ensure!(
            before == after,
            "pods were replaced: {before:?} became {after:?}"
        );
        let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let counts = lab.kubectl_ok(["get", "pods", "-o", restarts]).await?;
        ensure!(
            counts.split(' ').all(|count| count == "0"),
            "restarts: {counts}"
        );
        Ok(())
    })
    .await;
}

/// New connections through the node all the while: from its client pod to the Service, and from outside to its port.
async fn killed_under_load(lab: &Lab, node: &str, daemon: &Daemon) -> Result<()> {
    let service = workload::cluster_ip(lab, "echo").await?;
    let client = lab.pod(&format!("client-{node}")).await?;
    let outside = lab.outside()?;
    let config = lab.config().nodes.iter().find(|n| n.name == node);
    let port = workload::node_port(config.ok_or_else(|| anyhow::anyhow!("no node {node}"))?);
    // What flows must flow before anything is killed.
    let pods = workload::replicas(lab).await?;
    reach::reaches(&client, Transport::Tcp, service, &pods).await?;
    reach::reaches(&outside, Transport::Tcp, port, &pods).await?;

    let loads = [
        (
            "pod to Service, tcp",
            client.load(Transport::Tcp, service, PACE)?,
        ),
        (
            "pod to Service, udp",
            client.load(Transport::Udp, service, PACE)?,
        ),
        (
            "outside to NodePort, tcp",
            outside.load(Transport::Tcp, port, PACE)?,
        ),
        (
            "outside to NodePort, udp",
            outside.load(Transport::Udp, port, PACE)?,
        ),
    ];
    progress(&loads).await?;
    lab.kill(daemon).await?;
    progress(&loads).await?;
    lab.start(daemon).await?;
    progress(&loads).await?;
    for (what, load) in loads {
        let what = format!("{what} while {} was killed", daemon.id());
        reach::nothing_lost(&what, &load.stop().await?)?;
    }
    Ok(())
}

async fn progress(loads: &[(&str, Load)]) -> Result<()> {
    for (_, load) in loads {
        load.more(STRETCH).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_go_on_without_the_api_server_and_resume() {
    if !require::met(require::LAB) {
        return;
    }
    let mut config = fixture::mixed();
    // The server's log then has a line for every request.
    config.log_filter = "info,seaway_apiserver=debug".into();
    fixture::with_lab(config, async |lab| {
        workload::deploy(lab).await?;
        let service = workload::cluster_ip(lab, "echo").await?;
        let clients = [lab.pod("client-n1").await?, lab.pod("client-n2").await?];
        let loads = [
            (
                "mode iptables",
                clients[0].load(Transport::Tcp, service, PACE)?,
            ),
            ("mode ebpf", clients[1].load(Transport::Tcp, service, PACE)?),
        ];
        progress(&loads).await?;
        lab.kill(&Daemon::Server).await?;
        let log = Daemon::Server.log(lab.name());
        let before = std::fs::read_to_string(&log)?.len();
        progress(&loads).await?;
        lab.start(&Daemon::Server).await?;
        progress(&loads).await?;

        // A change made after the restart arrives: the watches were resumed.
        lab.kubectl_ok(["scale", "deployment/echo", "--replicas=4"])
            .await?;
        workload::rolled_out(lab).await?;
        let pods = workload::replicas(lab).await?;
        ensure!(pods.len() == 4, "{pods:?}");
        for client in &clients {
            reach::reaches(client, Transport::Tcp, service, &pods).await?;
        }
        let log = std::fs::read_to_string(&log)?;
        resumed(&log[before..])?;
        // Lists would have been seen: every node began with them.
        ensure!(resumed(&log[..before]).is_err(), "no list was ever logged");
        for (what, load) in loads {
            let what = format!("{what} while the API server was away");
            reach::nothing_lost(&what, &load.stop().await?)?;
        }
        Ok(())
    })
    .await;
}

/// What the nodes asked of the new server: to go on watching where they were, and no list of anything that is watched.
fn resumed(log: &str) -> Result<()> {
    let of_nodes = log
        .lines()
        .filter(|line| line.contains("user=\"system:node:") && line.contains("method=GET"));
    let (mut watches, mut lists) = (0, Vec::new());
    for line in of_nodes {
        let uri = line.split("uri=").nth(1).unwrap_or_default();
        let uri = uri.split(' ').next().unwrap_or_default();
        let path = uri.split('?').next().unwrap_or_default();
        let watched = ["/nodes", "/services", "/endpointslices", "/pods"];
        if !watched.iter().any(|resource| path.ends_with(resource)) {
            continue;
        }
        let resumes = uri.contains("watch=true") && !uri.contains("sendInitialEvents=true");
        if resumes && uri.contains("resourceVersion=") && !uri.contains("resourceVersion=0") {
            watches += 1;
        } else {
            lists.push(uri);
        }
    }
    // Three kinds for each proxy, the Nodes for each overlay; the agents watch their pods.
    ensure!(watches >= 12, "{watches} watches were resumed:\n{log}");
    ensure!(lists.is_empty(), "listed anew: {lists:#?}");
    Ok(())
}
