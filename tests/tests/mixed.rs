//! Clusters of both modes: whichever mode the node of the client has, the node that it knocks at, and the node of the
//! endpoint, the answer is the same. Two nodes of each mode make all eight combinations, with the nodes apart where they can be.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use seaway_lab::topology::outside_address;
use seaway_lab::traffic::{Answer, Transport};
use seaway_lab::{Lab, Mode, NodeConfig, Place};
use seaway_tests::{fixture, reach, require, workload};

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Requests to a Service with one endpoint.
const ROUND: u64 = 2;

/// Until all nodes have heard whose clients a node answers, at most.
const HEARD: Duration = Duration::from_secs(30);

/// How long nobody has to answer to say that nobody does.
const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn modes_of_client_entry_and_endpoint_do_not_matter() {
    if !require::met(require::LAB) {
        return;
    }
    fixture::with_lab(fixture::two_of_each_mode(), async |lab| {
        let manifest: String = lab.nodes().map(manifest).collect();
        workload::start_pods(lab, &manifest, "back").await?;
        let lab = &*lab;
        let nodes = &lab.config().nodes;
        try_join_all(nodes.iter().map(|client| from_pod(lab, client))).await?;
        try_join_all(nodes.iter().map(|client| from_node(lab, client))).await?;
        try_join_all(nodes.iter().map(|entry| from_outside(lab, entry))).await?;
        Ok(())
    })
    .await;
}

/// Where packets enter and where they are answered, every pair of modes, with `--forwarding dsr`: a node answers clients of another one
/// itself if both are in eBPF mode, and after a change of mode no more.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_answered_by_the_nodes_that_can() {
    if !require::met(require::LAB) {
        return;
    }
    let mut config = fixture::two_of_each_mode();
    config.proxy_flags = vec!["--forwarding=dsr".to_owned()];
    fixture::with_lab(config, async |lab| {
        let manifest: String = lab.nodes().map(manifest).collect();
        workload::start_pods(lab, &manifest, "back").await?;
        answered_directly(lab, &["n2", "n4"]).await?;
        lab.switch_mode("n4", Mode::Iptables).await?;
        answered_directly(lab, &["n2"]).await?;
        lab.switch_mode("n4", Mode::Ebpf).await?;
        answered_directly(lab, &["n2", "n4"]).await
    })
    .await;
}

/// Of a node that is in eBPF mode, as the one where the packets enter, endpoints see who is outside; of all others that node.
async fn answered_directly(lab: &Lab, ebpf: &[&str]) -> Result<()> {
    let outside = lab.outside()?;
    for entry in &lab.config().nodes {
        for backend in &lab.config().nodes {
            let direct = [entry, backend]
                .iter()
                .all(|n| ebpf.contains(&n.name.as_str()));
            let target = SocketAddr::new(entry.address(), node_port(ANY, backend));
            for transport in BOTH {
                let start = Instant::now();
                loop {
                    let all = answers(&outside, transport, target, backend).await?;
                    let sees = |answer: &Answer| answer.peer.ip() == outside_address();
                    if all.iter().all(|answer| sees(answer) == direct) {
                        break;
                    }
                    ensure!(
                        start.elapsed() < HEARD,
                        "{} over {}, {ebpf:?} in eBPF mode: {all:?}",
                        backend.name,
                        entry.name
                    );
                }
            }
        }
    }
    Ok(())
}

/// What a pod meets, the endpoints' own pods among them: a pod that asks its own Service is its own endpoint.
async fn from_pod(lab: &Lab, client: &NodeConfig) -> Result<()> {
    let pod = lab.pod(&endpoint(client)).await?;
    let own = address(lab, &endpoint(client)).await?;
    for backend in &lab.config().nodes {
        let hairpin = client.name == backend.name;
        let service = workload::cluster_ip(lab, &service("any", backend)).await?;
        for transport in BOTH {
            for answer in answers(&pod, transport, service, backend).await? {
                let kept = answer.peer.ip() == own;
                ensure!(kept || hairpin, "{} sees {}", answer.pod, answer.peer);
            }
            for entry in &lab.config().nodes {
                let target = SocketAddr::new(entry.address(), node_port(ANY, backend));
                answers(&pod, transport, target, backend).await?;
                // Inside of the cluster a node sends to any endpoint, and the endpoint's own node in any case.
                if entry.name == client.name || entry.name == backend.name {
                    let target = SocketAddr::new(entry.address(), node_port(LOCAL, backend));
                    answers(&pod, transport, target, backend).await?;
                }
            }
        }
    }
    Ok(())
}

/// What a process of a node meets.
async fn from_node(lab: &Lab, client: &NodeConfig) -> Result<()> {
    let process = lab.node(&client.name)?;
    for backend in &lab.config().nodes {
        let service = workload::cluster_ip(lab, &service("any", backend)).await?;
        for transport in BOTH {
            answers(&process, transport, service, backend).await?;
            for entry in &lab.config().nodes {
                let target = SocketAddr::new(entry.address(), node_port(ANY, backend));
                answers(&process, transport, target, backend).await?;
            }
        }
    }
    Ok(())
}

/// What somebody outside meets at a node.
async fn from_outside(lab: &Lab, entry: &NodeConfig) -> Result<()> {
    let outside = lab.outside()?;
    for backend in &lab.config().nodes {
        for transport in BOTH {
            let target = |port| SocketAddr::new(entry.address(), port);
            let any = target(node_port(ANY, backend));
            answers(&outside, transport, any, backend).await?;
            let local = target(node_port(LOCAL, backend));
            if entry.name == backend.name {
                for answer in answers(&outside, transport, local, backend).await? {
                    let seen = answer.peer.ip();
                    ensure!(seen == outside_address(), "{} sees {seen}", answer.pod);
                }
            } else {
                let (_, summary) = outside.attempts(transport, local, 1, SILENCE).await?;
                ensure!(summary.answered == 0, "{local}: {summary:?}");
            }
        }
    }
    Ok(())
}

/// Requests that all have to be answered by the endpoint of a node; waits for that.
async fn answers(
    from: &Place,
    transport: Transport,
    target: SocketAddr,
    backend: &NodeConfig,
) -> Result<Vec<Answer>> {
    let start = Instant::now();
    loop {
        let limit = Duration::from_secs(2);
        let (attempts, _) = from.attempts(transport, target, ROUND, limit).await?;
        let right = |answer: &Answer| answer.pod == endpoint(backend);
        let answered: Vec<Answer> = attempts
            .iter()
            .filter_map(|attempt| attempt.answer.clone())
            .filter(right)
            .collect();
        if answered.len() == attempts.len() && !answered.is_empty() {
            return Ok(answered);
        }
        if start.elapsed() > reach::SETTLE {
            let (who, how) = (from.label(), transport.as_str());
            bail!(
                "from {who} to {how} {target}, served on {}: {attempts:?}",
                backend.name
            );
        }
    }
}

/// First node port of the Services that have `externalTrafficPolicy: Cluster`, and of those that have `Local`.
const ANY: u16 = 30_100;
const LOCAL: u16 = 30_200;

fn node_port(first: u16, backend: &NodeConfig) -> u16 {
    first + u16::from(backend.number())
}

fn endpoint(node: &NodeConfig) -> String {
    format!("back-{}", node.name)
}

fn service(kind: &str, node: &NodeConfig) -> String {
    format!("{kind}-{}", node.name)
}

async fn address(lab: &Lab, pod: &str) -> Result<IpAddr> {
    let path = "jsonpath={.status.podIP}";
    let ip = lab.kubectl_ok(["get", "pod", pod, "-o", path]).await?;
    ip.trim().parse().with_context(|| format!("{pod}: {ip:?}"))
}

/// One endpoint on a node, with a Service of each policy for itself.
fn manifest(node: &str) -> String {
    let number = node.trim_start_matches('n');
    let service = |kind: &str, policy: &str, first: u16| {
        let hundreds = first / 100;
        format!(
            r#"---
apiVersion: v1
kind: Service
metadata:
  name: {kind}-{node}
spec:
  type: NodePort
  externalTrafficPolicy: {policy}
  selector: {{app: back, at: {node}}}
  ports:
    - {{name: tcp, port: 80, targetPort: 8080, protocol: TCP, nodePort: {hundreds}0{number}}}
    - {{name: udp, port: 80, targetPort: 8080, protocol: UDP, nodePort: {hundreds}0{number}}}
"#
        )
    };
    let (any, local) = (
        service("any", "Cluster", ANY),
        service("local", "Local", LOCAL),
    );
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata:
  name: back-{node}
  labels: {{app: back, at: {node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: seaway.dev/echo
      env:
        - {{name: POD_NAME, value: back-{node}}}
        - {{name: NODE_NAME, value: {node}}}
      readinessProbe:
        tcpSocket: {{port: 8080}}
        periodSeconds: 1
{any}{local}"#
    )
}
