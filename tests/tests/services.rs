//! Services, from every node of a cluster with both modes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use seaway_lab::Lab;
use seaway_lab::traffic::Transport;
use seaway_tests::{fixture, reach, require, workload};

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_from_everywhere() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        let pods = workload::replicas(lab).await?;
        let service = workload::cluster_ip(lab, "echo").await?;
        for transport in BOTH {
            for node in &lab.config().nodes {
                let client = lab.pod(&format!("client-{}", node.name)).await?;
                reach::reaches(&client, transport, service, &pods).await?;
                // Processes of the node itself are clients as well.
                reach::reaches(&lab.node(&node.name)?, transport, service, &pods).await?;
                // Each node must reach the backends on all others.
                let port = workload::node_port(node);
                reach::reaches(&lab.outside()?, transport, port, &pods).await?;
                reach::reaches(&client, transport, port, &pods).await?;
            }
        }
        hairpin(lab, service).await
    })
    .await;
}

/// A pod that calls its own Service reaches all replicas, itself among them.
async fn hairpin(lab: &Lab, service: SocketAddr) -> Result<()> {
    let pods = workload::replicas(lab).await?;
    for pod in &pods {
        let inside = lab.pod(pod).await?;
        for transport in BOTH {
            reach::reaches(&inside, transport, service, &pods).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_endpoints_refuses_at_once_and_recovers() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        let service = workload::cluster_ip(lab, "echo").await?;
        lab.kubectl_ok(["scale", "deployment/echo", "--replicas=0"])
            .await?;
        for node in &lab.config().nodes {
            let client = lab.pod(&format!("client-{}", node.name)).await?;
            reach::refused(&client, service).await?;
            reach::refused(&lab.outside()?, workload::node_port(node)).await?;
        }
        lab.kubectl_ok(["scale", "deployment/echo", "--replicas=2"])
            .await?;
        workload::rolled_out(lab).await?;
        let pods = workload::replicas(lab).await?;
        for node in &lab.config().nodes {
            let client = lab.pod(&format!("client-{}", node.name)).await?;
            for transport in BOTH {
                reach::reaches(&client, transport, service, &pods).await?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_traffic_only_while_it_is_ready() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        let flag = lab.name().dir().join("scratch/ready");
        let manifest = gated(&flag.to_string_lossy());
        let applied = lab.kubectl_with(&manifest, ["apply", "-f", "-"]).await?;
        ensure!(applied.code == Some(0), "{}", applied.stderr);
        workload::start_clients(lab).await?;
        let running = "--for=jsonpath={.status.phase}=Running";
        lab.kubectl_ok(["wait", "pod/gated", running, "--timeout=30s"])
            .await?;

        let service = workload::cluster_ip(lab, "gated").await?;
        let clients = ["client-n1", "client-n2", "client-n3"];
        for client in clients {
            reach::refused(&lab.pod(client).await?, service).await?;
        }
        std::fs::write(&flag, "")?;
        for client in clients {
            let pods = ["gated".to_owned()].into();
            reach::reaches(&lab.pod(client).await?, Transport::Tcp, service, &pods).await?;
        }
        std::fs::remove_file(&flag)?;
        for client in clients {
            reach::refused(&lab.pod(client).await?, service).await?;
        }
        Ok(())
    })
    .await;
}

fn gated(flag: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata:
  name: gated
  labels: {{app: gated}}
spec:
  nodeName: n1
  containers:
    - name: echo
      image: seaway.dev/echo
      readinessProbe:
        exec:
          command: ["test", "-e", "{flag}"]
        periodSeconds: 1
        failureThreshold: 1
---
apiVersion: v1
kind: Service
metadata:
  name: gated
spec:
  selector: {{app: gated}}
  ports:
    - port: 80
      targetPort: 8080
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_follows_a_pod_that_is_deleted() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::mixed(), async |lab| {
        workload::deploy(lab).await?;
        let service = workload::cluster_ip(lab, "echo").await?;
        for node in ["n1", "n2", "n3"] {
            let client = lab.pod(&format!("client-{node}")).await?;
            let victim = workload::replicas(lab).await?.into_iter().next();
            let victim = victim.unwrap_or_default();
            lab.kubectl_ok(["delete", "pod", &victim]).await?;
            workload::rolled_out(lab).await?;
            let pods = workload::replicas(lab).await?;
            ensure!(
                !pods.contains(&victim) && pods.len() == 3,
                "{victim}: {pods:?}"
            );
            for transport in BOTH {
                reach::reaches(&client, transport, service, &pods).await?;
            }
        }
        // Nothing of the deleted pods is left on any node: one namespace a pod that is there.
        let prefixes: Vec<String> = lab
            .nodes()
            .map(|n| lab.name().pod_netns_prefix(n))
            .collect();
        seaway_lab::eventually(
            "one namespace for each pod",
            Duration::from_secs(10),
            async || {
                let all = seaway_kernel::NetNs::list().map_err(|error| error.to_string())?;
                let pods = all
                    .iter()
                    .filter(|netns| prefixes.iter().any(|p| netns.starts_with(p)));
                match pods.count() {
                    6 => Ok(()),
                    other => Err(format!("{other} namespaces for 6 pods")),
                }
            },
        )
        .await?;
        Ok(())
    })
    .await;
}
