//! Pods whose sockets mode ebpf leaves alone, in a cluster: by their label, and because a rule of their own redirects what they
//! send. Who is left alone shows in rules of the pod itself for the address of a Service: a socket that is translated at
//! `connect()` never meets them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use seaway_lab::traffic::Transport;
use seaway_lab::{Lab, Place, eventually};
use seaway_tests::{fixture, reach, require, workload};

/// Namespaces are looked at from time to time; a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The endpoint on one node, in mode iptables, and a pod on the other, in mode ebpf, that answers itself where its rules say so.
const PODS: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: far
  labels: {app: aside, serves: far}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: seaway.dev/echo
      readinessProbe:
        tcpSocket: {port: 8080}
        periodSeconds: 1
---
apiVersion: v1
kind: Pod
metadata:
  name: own
  labels: {app: aside}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: seaway.dev/echo
      readinessProbe:
        tcpSocket: {port: 8080}
        periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: far
spec:
  selector: {serves: far}
  ports:
    - {name: tcp, port: 80, targetPort: 8080, protocol: TCP}
    - {name: udp, port: 80, targetPort: 8080, protocol: UDP}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_left_alone_by_a_label_and_beside_a_sidecar() {
    if !require::met(require::LAB) || !require::met(&[require::Need::Program("iptables")]) {
        return;
    }
    let mut config = fixture::one_of_each_mode();
    config.proxy_flags = vec!["--pod-labels".to_owned()];
    fixture::with_lab(config, async |lab| {
        workload::start_pods(lab, PODS, "aside").await?;
        let service = workload::cluster_ip(lab, "far").await?;
        let pod = lab.pod("own").await?;
        by_label(lab, &pod, service).await?;
        by_sidecar(&pod, service).await?;
        // What rules of the pod do not take is translated packet by packet, with the pod's address as the client's.
        let path = "jsonpath={.status.podIP}";
        let ip = lab.kubectl_ok(["get", "pod", "own", "-o", path]).await?;
        let dump = lab
            .proxy("n2", &["dump", "--actual", "--mode=ebpf"])
            .await?;
        let flow = format!(" udp {}:", ip.trim());
        let to = format!(" -> {service} => ");
        let is_flow = |line: &str| line.contains(&flow) && line.contains(&to);
        ensure!(dump.stdout.lines().any(is_flow), "{}", dump.stdout);
        Ok(())
    })
    .await;
}

/// A rule that is not a sidecar's: only the label has it take effect.
async fn by_label(lab: &Lab, pod: &Place, service: SocketAddr) -> Result<()> {
    let to_itself = ["-j", "DNAT", "--to-destination", "127.0.0.1:8080"];
    rule(pod, "-A", service, &to_itself).await?;
    answers(pod, service, "far").await?;
    for (label, who) in [
        ("seaway.dev/sockets=untranslated", "own"),
        ("seaway.dev/sockets-", "far"),
    ] {
        lab.kubectl_ok(["label", "pod", "own", label]).await?;
        answers(pod, service, who).await?;
    }
    rule(pod, "-D", service, &to_itself).await
}

/// A rule like a sidecar's takes effect by itself, for as long as it is there.
async fn by_sidecar(pod: &Place, service: SocketAddr) -> Result<()> {
    let redirect = ["-j", "REDIRECT", "--to-ports", "8080"];
    rule(pod, "-A", service, &redirect).await?;
    answers(pod, service, "own").await?;
    // Datagrams meet no rule, and reach the endpoint in any case.
    reach::reaches(
        pod,
        Transport::Udp,
        service,
        &BTreeSet::from(["far".to_owned()]),
    )
    .await?;
    rule(pod, "-D", service, &redirect).await?;
    answers(pod, service, "far").await
}

/// Adds or deletes a rule in the pod for connections to the Service.
async fn rule(pod: &Place, verb: &str, service: SocketAddr, target: &[&str]) -> Result<()> {
    let (ip, port) = (service.ip().to_string(), service.port().to_string());
    let of_service = ["-p", "tcp", "-d", &ip, "--dport", &port];
    let place = ["-t", "nat", verb, "OUTPUT"];
    let words = [&place[..], &of_service, target].concat();
    let done = pod.run("iptables", &words).await?;
    ensure!(done.code == Some(0), "iptables {words:?}: {}", done.stderr);
    Ok(())
}

/// Waits until this pod, and nobody else, answers connections to the Service.
async fn answers(pod: &Place, service: SocketAddr, who: &str) -> Result<()> {
    let what = format!("answers of {who} alone");
    eventually(&what, PATIENCE, async || {
        let probed = pod.probe(Transport::Tcp, service, 5).await;
        let summary = probed.map_err(|error| error.to_string())?;
        let right = summary.failed == 0 && summary.pods.keys().all(|pod| pod == who);
        right.then_some(()).ok_or_else(|| format!("{summary:?}"))
    })
    .await?;
    Ok(())
}
