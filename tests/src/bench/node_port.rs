//! A node port whose endpoint is on another node: packets a second through the node, in both modes in turn.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use seaway_kernel::NetNs;

use super::one_node::pod::PORT;
use super::one_node::wiring::NODE_IP;
use super::one_node::{Bench, BenchArgs};
use super::{Figures, Stage, Unit};

/// Flows, each of a socket of its own.
const FLOWS: usize = 16;
/// What a datagram carries, and how many are handed over at once: the sender costs little beside the node.
const PAYLOAD: u16 = 18;
const AT_ONCE: usize = 64;

/// Between two attempts, and for all of them.
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

/// Measures both modes, if ours is measured in eBPF mode.
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
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..stage.times(3, 1) {
        for (mode, rates) in modes.iter().zip(&mut rates) {
            let (running, _) = bench.stand.cold_start(&mut bench.client, mode).await?;
            let node = &bench.stand.node;
            let (outside, peer) = (node.outside_netns()?, node.peer_netns()?);
            let flood = move || flood(&outside, &peer, target, time);
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
    let [ebpf, iptables] = rates;
    let ratios: Vec<f64> = ebpf.iter().zip(&iptables).map(|(e, i)| e / i).collect();
    let mut labels = modes[0].labels();
    labels.extend([("services", count.as_str()), ("endpoints", &endpoints)]);
    let metric = "nodeport_pps_ratio_to_iptables";
    figures.named_median(&labels, metric, Unit::Ratio, &ratios);
    Ok(())
}

/// Sends as fast as one thread can; how many packets a second arrive.
fn flood(outside: &NetNs, peer: &NetNs, target: SocketAddr, time: Duration) -> Result<f64> {
    // Somebody has to be there, or the peer would refuse each packet; what is not read is dropped.
    let endpoint = peer.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??;
    endpoint.set_read_timeout(Some(PAUSE))?;
    outside.run(|| {
        served(target, &endpoint)?;
        let mut sockets = Vec::with_capacity(FLOWS);
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(target)?;
            setsockopt(&socket, UdpGsoSegment, &i32::from(PAYLOAD))?;
            sockets.push(socket);
        }
        let burst = vec![b'x'; usize::from(PAYLOAD) * AT_ONCE];
        let send = |time: Duration| -> Result<()> {
            let end = Instant::now() + time;
            while Instant::now() < end {
                for socket in &sockets {
                    socket.send(&burst)?;
                }
            }
            Ok(())
        };
        // The first tenth sets up the flows.
        send(time / 10)?;
        let (before, begun) = (received(peer, "eth0")?, Instant::now());
        send(time)?;
        let packets = received(peer, "eth0")? - before;
        ensure!(packets > 0, "nothing arrives at the endpoint");
        Ok(packets as f64 / begun.elapsed().as_secs_f64())
    })?
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
