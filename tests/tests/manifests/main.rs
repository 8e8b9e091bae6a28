//! The proxy with no API at all: a directory of manifests is its source, followed live, in both modes.

mod stand;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use seaway_lab::traffic::{Load, Transport};
use seaway_lab::{Mode, eventually};
use seaway_tests::require::Need;
use seaway_tests::{reach, require};
use stand::{NODE_IP, PODS, Stand};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("iptables-restore"),
    Need::Program("ip"),
    Need::Kernel(6, 6),
    Need::Binaries,
];

const NODE: &str =
    "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.244.1.0/24}}\n";

/// A Service at 10.96.0.`last`, TCP and UDP port 80 and node port 30000 + `last`, with these pods behind.
fn manifest(name: &str, last: u8, pods: &[&str]) -> String {
    let port = 30_000 + u16::from(last);
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  type: NodePort
  clusterIP: 10.96.0.{last}
  ports:
  - {{name: tcp, protocol: TCP, port: 80, nodePort: {port}}}
  - {{name: udp, protocol: UDP, port: 80, nodePort: {port}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports:
- {{name: tcp, protocol: TCP, port: 8080}}
- {{name: udp, protocol: UDP, port: 8080}}
endpoints:
"
    );
    for (pod, address) in PODS.iter().filter(|(pod, _)| pods.contains(pod)) {
        text += &format!(
            "- {{addresses: [{address}], nodeName: n1, conditions: {{ready: true}}}} # {pod}\n"
        );
    }
    text
}

fn service(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

/// From the node, from a pod, and from outside: exactly these answer.
#[track_caller]
fn answers<'a>(
    stand: &'a Stand,
    last: u8,
    pods: &'a [&str],
) -> impl Future<Output = Result<()>> + 'a {
    let line = std::panic::Location::caller().line();
    async move {
        let outcome = all_answer(stand, last, pods).await;
        outcome.with_context(|| format!("line {line}; the proxy's log:\n{}", stand.log()))
    }
}

async fn all_answer(stand: &Stand, last: u8, pods: &[&str]) -> Result<()> {
    let pods: BTreeSet<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
    let port = format!("{NODE_IP}:{}", 30_000 + u16::from(last)).parse()?;
    for transport in [Transport::Tcp, Transport::Udp] {
        for from in ["client", "node"] {
            reach::reaches(&stand.place(from)?, transport, service(last), &pods).await?;
        }
        reach::reaches(&stand.place("outside")?, transport, port, &pods).await?;
    }
    Ok(())
}

/// Waits until the kernel has something for this address.
async fn shown(stand: &Stand, address: &str) -> Result<()> {
    eventually(address, reach::SETTLE, async || {
        match stand.command("dump").await {
            Ok(dump) if dump.stdout.contains(address) => Ok(()),
            Ok(dump) => Err(dump.stdout),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    Ok(())
}

/// Nobody answers at the Service any more.
async fn gone(stand: &Stand, last: u8) -> Result<()> {
    let client = stand.place("client")?;
    eventually("the end of the Service", reach::SETTLE, async || {
        let limit = Duration::from_millis(200);
        match client
            .attempts(Transport::Tcp, service(last), 2, limit)
            .await
        {
            Ok((_, summary)) if summary.answered == 0 => Ok(()),
            Ok((_, summary)) => Err(format!("{summary:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(())
}

fn load(stand: &Stand) -> Result<[Load; 2]> {
    let pace = Duration::from_millis(10);
    let port = format!("{NODE_IP}:30010").parse()?;
    Ok([
        stand
            .place("client")?
            .load(Transport::Tcp, service(10), pace)?,
        stand.place("outside")?.load(Transport::Tcp, port, pace)?,
    ])
}

async fn nothing_lost(what: &str, loads: [Load; 2]) -> Result<()> {
    for load in loads {
        load.more(20).await?;
        reach::nothing_lost(what, &load.stop().await?)?;
    }
    Ok(())
}

/// As editors and package managers replace a file.
fn replace(stand: &Stand, name: &str, text: &str) -> Result<()> {
    let draft = stand.manifests().join(".draft");
    fs::write(&draft, text)?;
    Ok(fs::rename(draft, stand.manifests().join(name))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_served_and_followed_in_mode_iptables() -> Result<()> {
    served_and_followed(Mode::Iptables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_served_and_followed_in_mode_ebpf() -> Result<()> {
    served_and_followed(Mode::Ebpf).await
}

async fn served_and_followed(mode: Mode) -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let mut stand = Stand::new(mode)?;
    let directory = stand.manifests();
    let untouched = stand.trace().await?;
    fs::write(directory.join("node.yaml"), NODE)?;
    fs::write(directory.join("echo.yaml"), manifest("echo", 10, &["pod1"]))?;

    // What would be done is printed, and nothing is done.
    let plan = stand.command("plan").await?.stdout;
    ensure!(plan.contains("10.96.0.10"), "{plan}");
    ensure!(plan.contains("10.244.1.11"), "{plan}");
    ensure!(stand.trace().await? == untouched, "plan changed something");

    stand.start().await?;
    answers(&stand, 10, &["pod1"]).await?;
    let plan = stand.command("plan").await?.stdout;
    let to_do = plan.lines().find(|line| !line.starts_with(['#', '!']));
    ensure!(to_do.is_none(), "still to do: {to_do:?}\n{plan}");
    let dump = stand.command("dump").await?.stdout;
    ensure!(dump.contains("10.96.0.10"), "{dump}");
    ensure!(dump.contains("10.244.1.11"), "{dump}");

    // From here on requests come all the while, and none may be lost.
    let loads = load(&stand)?;
    // Edited in place, then replaced as editors do.
    fs::write(
        directory.join("echo.yaml"),
        manifest("echo", 10, &["pod1", "pod2"]),
    )?;
    answers(&stand, 10, &["pod1", "pod2"]).await?;
    replace(&stand, "echo.yaml", &manifest("echo", 10, &["pod2"]))?;
    answers(&stand, 10, &["pod2"]).await?;
    // Added. Nobody asks before it is there: a first packet that went astray would be translated when it is sent
    // again, as a flow whose port the client may soon use for a connection of its own.
    replace(&stand, "other.yaml", &manifest("other", 11, &["pod1"]))?;
    shown(&stand, "10.96.0.11").await?;
    answers(&stand, 11, &["pod1"]).await?;
    // Renamed, and followed under its new name.
    fs::rename(directory.join("echo.yaml"), directory.join("zz.yaml"))?;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    answers(&stand, 10, &["pod2"]).await?;
    replace(&stand, "zz.yaml", &manifest("echo", 10, &["pod1", "pod2"]))?;
    answers(&stand, 10, &["pod1", "pod2"]).await?;

    broken_for_a_while(&stand).await?;

    // Removed.
    fs::remove_file(directory.join("other.yaml"))?;
    gone(&stand, 11).await?;
    answers(&stand, 10, &["pod1"]).await?;
    nothing_lost("while files changed", loads).await?;

    restarted(&mut stand).await?;

    stand.kill()?;
    let removed = stand.command("cleanup").await?.stdout;
    ensure!(removed.contains(&format!("{mode}: removed")), "{removed}");
    // The built-in chains and tables stay once somebody used them.
    let left = stand.trace().await?;
    ensure!(!left.contains("SEAWAY"), "left behind:\n{left}");
    ensure!(!stand.bpffs().exists(), "pins were left behind");
    let again = stand.command("cleanup").await?.stdout;
    ensure!(!again.contains("removed"), "{again}");
    Ok(())
}

/// A file that cannot be read holds nothing back: its last state stays, the error says where, others are followed.
async fn broken_for_a_while(stand: &Stand) -> Result<()> {
    let good = manifest("echo", 10, &["pod1"]);
    replace(
        stand,
        "zz.yaml",
        &good.replace("endpoints:\n", "endpoints: [\n"),
    )?;
    stand.logged(&["zz.yaml", "document 2", "line 22"]).await?;
    replace(stand, "other.yaml", &manifest("other", 11, &["pod2"]))?;
    answers(stand, 11, &["pod2"]).await?;
    answers(stand, 10, &["pod1", "pod2"]).await?;

    // Well-formed, but not a Service: the object is named as well. What is sound in the file counts already.
    replace(stand, "zz.yaml", &good.replace("port: 80,", "port: web,"))?;
    stand
        .logged(&["zz.yaml", "line 1", "Service default/echo", "\"web\""])
        .await?;
    replace(stand, "other.yaml", &manifest("other", 11, &["pod1"]))?;
    answers(stand, 11, &["pod1"]).await?;
    answers(stand, 10, &["pod1"]).await?;

    replace(stand, "zz.yaml", &good)?;
    answers(stand, 10, &["pod1"]).await
}

/// Killed under load, it comes back to files that changed meanwhile.
async fn restarted(stand: &mut Stand) -> Result<()> {
    let loads = load(stand)?;
    stand.kill()?;
    replace(stand, "zz.yaml", &manifest("echo", 10, &["pod2"]))?;
    replace(stand, "late.yaml", &manifest("late", 12, &["pod1"]))?;
    answers(stand, 10, &["pod1"]).await?;
    stand.start().await?;
    answers(stand, 10, &["pod2"]).await?;
    answers(stand, 12, &["pod1"]).await?;
    nothing_lost("while the proxy was away", loads).await
}

/// Where connection tracking is told to be liberal, what it calls invalid is let pass, as in kube-proxy.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_packets_are_dropped_unless_the_node_is_liberal() -> Result<()> {
    if !require::met(NEEDS) {
        return Ok(());
    }
    let mut stand = Stand::new(Mode::Iptables)?;
    for (liberal, dropped) in [("0", true), ("1", false)] {
        stand.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", liberal)?;
        stand.start().await?;
        let rules = stand.trace().await?;
        ensure!(rules.contains("SEAWAY-FORWARD"), "{rules}");
        ensure!(
            rules.contains("--ctstate INVALID") == dropped,
            "liberal {liberal}:\n{rules}"
        );
        stand.kill()?;
    }
    Ok(())
}
