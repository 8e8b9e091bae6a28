//! What the demo shows, in order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use seaway_lab::traffic::Transport;
use seaway_lab::{Lab, Place};
use seaway_tests::{reach, workload};

use crate::report::Report;

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

pub(crate) async fn all(lab: &Lab, report: &mut Report) -> Result<()> {
    let started = Instant::now();
    workload::deploy(lab).await.context("kubectl apply")?;
    report.passed(
        "kubectl apply: Deployment, Services, clients",
        started,
        "3 replicas ready".into(),
    );
    let service = workload::cluster_ip(lab, "echo").await?;
    let mut everywhere = Vec::new();
    for node in &lab.config().nodes {
        let client = lab.pod(&format!("client-{}", node.name)).await?;
        everywhere.push((format!("pod on {} ({})", node.name, node.mode), client));
    }

    let pods = workload::replicas(lab).await?;
    ensure!(pods.len() == 3, "expected 3 replicas, found {pods:?}");
    for transport in BOTH {
        for (from, client) in &everywhere {
            let name = format!("{from} to Service, {}", transport.as_str());
            check(report, name, client, transport, service, &pods).await;
        }
        for node in &lab.config().nodes {
            let name = format!(
                "outside to NodePort on {} ({}), {}",
                node.name,
                node.mode,
                transport.as_str()
            );
            let target = workload::node_port(node);
            check(report, name, &lab.outside()?, transport, target, &pods).await;
        }
    }

    scale(lab, report, &everywhere, service).await?;
    delete_a_pod(lab, report, &everywhere, service).await
}

async fn scale(
    lab: &Lab,
    report: &mut Report,
    everywhere: &[(String, Place)],
    service: SocketAddr,
) -> Result<()> {
    let started = Instant::now();
    lab.kubectl_ok(["scale", "deployment/echo", "--replicas=5"])
        .await?;
    workload::rolled_out(lab).await?;
    let pods = workload::replicas(lab).await?;
    ensure!(pods.len() == 5, "expected 5 replicas, found {pods:?}");
    report.passed("kubectl scale to 5", started, "5 replicas ready".into());
    for (from, client) in everywhere {
        let name = format!("{from} reaches the new replicas too");
        check(report, name, client, Transport::Tcp, service, &pods).await;
    }
    Ok(())
}

async fn delete_a_pod(
    lab: &Lab,
    report: &mut Report,
    everywhere: &[(String, Place)],
    service: SocketAddr,
) -> Result<()> {
    let started = Instant::now();
    let before = workload::replicas(lab).await?;
    let victim = before.first().context("there is no replica to delete")?;
    lab.kubectl_ok(["delete", "pod", victim]).await?;
    workload::rolled_out(lab).await?;
    let after = workload::replicas(lab).await?;
    ensure!(
        after.len() == 5 && !after.contains(victim),
        "expected a replacement of {victim}, found {after:?}"
    );
    report.passed(
        "kubectl delete pod",
        started,
        format!("{victim} was replaced"),
    );
    for (from, client) in everywhere {
        let name = format!("{from} reaches its replacement");
        check(report, name, client, Transport::Tcp, service, &after).await;
    }
    let outside = lab.outside()?;
    if let Some(node) = lab.config().nodes.get(1) {
        let name = format!("outside to NodePort on {} reaches it, udp", node.name);
        let target = workload::node_port(node);
        check(report, name, &outside, Transport::Udp, target, &after).await;
    }
    Ok(())
}

async fn check(
    report: &mut Report,
    name: String,
    from: &Place,
    transport: Transport,
    target: SocketAddr,
    pods: &BTreeSet<String>,
) {
    let started = Instant::now();
    match reach::reaches(from, transport, target, pods).await {
        Ok(summary) => {
            let detail = format!(
                "{} requests, all {} replicas answered, slowest {:.1} ms",
                summary.sent,
                summary.pods.len(),
                summary.slowest_ms
            );
            report.passed(&name, started, detail);
        }
        Err(error) => report.failed(&name, format!("{error:#}")),
    }
}
