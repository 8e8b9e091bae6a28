//! A node port whose endpoint is on another node: packets a second through the node, in both modes in turn, and in eBPF mode
//! with and without XDP.
//!
//! One processor does all of it: sender, node, and the endpoint's node. So the sender is an XDP program ([`super::frames`]), which costs a tenth
//! of a microsecond, and the endpoint's node drops what it gets at once ([`elsewhere`]): measured is the node between them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etherparse::PacketBuilder;
use seaway_kernel::NetNs;

use super::frames::{BATCH, Frames};
use super::one_node::pod::PORT;
use super::one_node::wiring::{NODE_IP, NODE_MAC, OUTSIDE_IP, PEER_IP, ip};
use super::one_node::{Bench, BenchArgs};
use super::statistics::median;
use super::{Figures, Stage, Unit};

/// Ports of the client's flows.
const FLOWS: std::ops::Range<u16> = 20_000..20_016;
/// What a datagram carries: the smallest frame.
const PAYLOAD: [u8; 18] = [b'x'; 18];
/// Batches of one flow, then of the next; and how many never fill the queue of a veth (256 frames).
const BATCHES: u32 = 20;
const SAFE: u32 = 3;

/// Between two attempts, and for all of them.
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

/// Measures all ways, if ours is measured in eBPF mode.
pub async fn compare(
    stage: &Stage,
    bench: &mut Bench,
    args: &BenchArgs,
    figures: &mut Figures,
) -> Result<()> {
    let Some(modes) = args.both_modes().await? else {
        return Ok(());
    };
    let port = bench.stand.services.create_remote().await?;
    let target = SocketAddr::new(NODE_IP.into(), port);
    let count = bench.stand.services.count().to_string();
    let endpoints = args.endpoints();
    let time = Duration::from_millis(stage.times(2000, 500) as u64);
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..stage.times(5, 3) {
        for (mode, rates) in modes.iter().zip(&mut rates) {
            let (running, _) = bench.stand.cold_start(&mut bench.client, mode).await?;
            let node = &bench.stand.node;
            let (outside, peer) = (node.outside_netns()?, node.peer_netns()?);
            let name = node.space("node");
            let flood = move || flood(&name, &outside, &peer, target, time);
            let rate = tokio::task::spawn_blocking(flood).await??;
            stage.say(&format!("{}: {rate:.0} packets a second", mode.title()));
            rates.push(rate);
            running.stop().await?;
        }
    }
    for (mode, rates) in modes.iter().zip(&rates) {
        let mut labels = mode.labels();
        labels.extend([("services", count.as_str()), ("endpoints", &endpoints)]);
        figures.named_median(&labels, "nodeport_pps", Unit::PerSecond, rates);
    }
    let [ways @ .., iptables] = rates;
    for (mode, rates) in modes.iter().zip(&ways) {
        let ratios: Vec<f64> = rates.iter().zip(&iptables).map(|(e, i)| e / i).collect();
        let mut labels = mode.labels();
        labels.extend([("services", count.as_str()), ("endpoints", &endpoints)]);
        let metric = "nodeport_pps_ratio_to_iptables";
        figures.named_median(&labels, metric, Unit::Ratio, &ratios);
    }
    Ok(())
}

/// Sends as fast as one thread can; how many packets a second arrive, the median of calls of which all do: on a busy machine the kernel may leave
/// packets to a thread of its own, which waits for its turn while this one fills queues that are full.
fn flood(
    node: &str,
    outside: &NetNs,
    peer: &NetNs,
    target: SocketAddr,
    time: Duration,
) -> Result<f64> {
    let endpoint = peer.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    endpoint.set_read_timeout(Some(PAUSE))?;
    outside.run(|| served(target, &endpoint))??;
    elsewhere(node, true)?;
    let rate = rate(outside, peer, target, time);
    elsewhere(node, false)?;
    rate
}

/// Lets the node believe that the endpoint's node has another Ethernet address. Frames still get there, are counted, and are no business
/// of its IP layer: what a real one does with them is done by processors of its own.
fn elsewhere(node: &str, on: bool) -> Result<()> {
    let change = if on { "replace" } else { "del" };
    let neighbour = format!("{PEER_IP} lladdr 02:00:00:00:79:ff dev eth1 nud permanent");
    ip(node, &format!("neigh {change} {neighbour}"))
}

fn rate(outside: &NetNs, peer: &NetNs, target: SocketAddr, time: Duration) -> Result<f64> {
    let mut frames = Frames::new(outside.clone(), "eth0")?;
    let flows = FLOWS
        .map(|port| frame(port, target.port()))
        .collect::<Result<Vec<_>>>()?;
    let mut batches = BATCHES;
    let mut rates = Vec::new();
    let mut last = String::new();
    let begun = Instant::now();
    while begun.elapsed() < time + time / 10 || (rates.is_empty() && begun.elapsed() < LIMIT) {
        for flow in &flows {
            let sent = u64::from(batches * BATCH);
            let (before, call) = (received(peer, "eth0")?, Instant::now());
            frames.send(flow, batches)?;
            while received(peer, "eth0")? - before < sent && call.elapsed() < PAUSE {
                std::thread::yield_now();
            }
            let (arrived, took) = (received(peer, "eth0")? - before, call.elapsed());
            if arrived < sent {
                last = format!("{arrived} of {sent} in {took:?}");
                batches = (batches / 2).max(SAFE);
                continue;
            }
            batches = (batches + 1).min(BATCHES);
            // The first tenth sets up the flows.
            if begun.elapsed() > time / 10 {
                rates.push(arrived as f64 / took.as_secs_f64());
            }
        }
    }
    median(&rates).with_context(|| format!("never do all packets arrive at the endpoint: {last}"))
}

/// A datagram to a node port.
fn frame(from: u16, to: u16) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], NODE_MAC.0)
        .ipv4(OUTSIDE_IP.octets(), NODE_IP.octets(), 64)
        .udp(from, to)
        .write(&mut frame, &PAYLOAD)?;
    Ok(frame)
}

/// Waits until the node port is served, which is not known of it by the cluster IPs. Each time from another port: what is not
/// served is remembered.
fn served(target: SocketAddr, endpoint: &UdpSocket) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"?", target)?;
        if endpoint.recv(&mut [0; 1]).is_ok() {
            return Ok(());
        }
    }
    bail!("the node port is not served within {LIMIT:?}")
}

/// Packets that came in by a link of a namespace so far.
pub(super) fn received(netns: &NetNs, link: &str) -> Result<u64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = netns.run(read)?.context("read the counters of links")?;
    packets(&text, link).with_context(|| format!("there is no {link}"))
}

/// From proc(5), `/proc/net/dev`: bytes, then packets.
fn packets(text: &str, link: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, counts) = lines.find(|(name, _)| *name == link)?;
    counts.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_follow_bytes() {
        let text =
            "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1 2 0\n  eth0: 1500 33 0 0\n";
        assert_eq!(packets(text, "eth0"), Some(33));
        assert_eq!(packets(text, "lo"), Some(2));
        assert_eq!(packets("    lo: 1 2 0\n", "eth0"), None);
    }
}
