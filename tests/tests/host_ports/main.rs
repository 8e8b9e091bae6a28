//! Ports of a node that lead to a pod (`hostPort`), with the proxy beside them in each mode: they answer from everywhere, also
//! while the proxy is away and after its mode has changed. The proxy has no part in them, and must not get in their way.

mod ipv6;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use seaway_lab::traffic::Transport;
use seaway_lab::{Daemon, Lab, Mode, NodeConfig};
use seaway_tests::{fixture, reach, require, workload};

/// The port of the node; of the pod it is 8080.
const PORT: u16 = 18080;

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_answer_from_everywhere_in_both_modes() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::one_of_each_mode(), async |lab| {
        let manifest: String = lab.nodes().map(manifest).collect();
        workload::start_pods(lab, &manifest, "ports").await?;
        answers(lab).await?;
        for node in ["n1", "n2"] {
            lab.stop(&Daemon::Proxy(node.into())).await?;
        }
        answers(lab).await?;
        for node in ["n1", "n2"] {
            lab.start(&Daemon::Proxy(node.into())).await?;
        }
        for (node, mode) in [("n1", Mode::Ebpf), ("n2", Mode::Iptables)] {
            lab.switch_mode(node, mode).await?;
        }
        answers(lab).await
    })
    .await;
}

/// Of each node the port answers from outside, from both nodes, and from every pod: its own, one beside it, those of the other
/// node. On the node itself it answers at the loopback address as well.
async fn answers(lab: &Lab) -> Result<()> {
    for owner in &lab.config().nodes {
        let pods = BTreeSet::from([owner_pod(owner)]);
        let target = SocketAddr::new(owner.address(), PORT);
        for transport in [Transport::Tcp, Transport::Udp] {
            reach::reaches(&lab.outside()?, transport, target, &pods).await?;
            for client in &lab.config().nodes {
                let node = lab.node(&client.name)?;
                reach::reaches(&node, transport, target, &pods).await?;
                for pod in [owner_pod(client), format!("beside-{}", client.name)] {
                    let pod = lab.pod(&pod).await?;
                    reach::reaches(&pod, transport, target, &pods).await?;
                }
            }
            let own = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
            let node = lab.node(&owner.name)?;
            reach::reaches(&node, transport, own, &pods).await?;
        }
    }
    Ok(())
}

fn owner_pod(node: &NodeConfig) -> String {
    format!("owner-{}", node.name)
}

/// A pod with the port, and one without.
fn manifest(node: &str) -> String {
    let pod = |name: &str, ports: &str| {
        format!(
            r"---
apiVersion: v1
kind: Pod
metadata:
  name: {name}-{node}
  labels: {{app: ports}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: seaway.dev/echo
      ports: [{ports}]
      env:
        - {{name: POD_NAME, value: {name}-{node}}}
        - {{name: NODE_NAME, value: {node}}}
      readinessProbe:
        tcpSocket: {{port: 8080}}
        periodSeconds: 1
"
        )
    };
    let port =
        |protocol: &str| format!("{{containerPort: 8080, hostPort: {PORT}, protocol: {protocol}}}");
    let ports = format!("{}, {}", port("TCP"), port("UDP"));
    pod("owner", &ports) + &pod("beside", "")
}
