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
    fixture::with_lab(fixture::mixed(), async |lab| {
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
        for (what, load) in loads {
            let what = format!("{what} while the API server was away");
            reach::nothing_lost(&what, &load.stop().await?)?;
        }
        Ok(())
    })
    .await;
}
