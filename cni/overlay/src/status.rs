//! `status`: what the running daemon found last.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::admin::Status;

const LIMIT: Duration = Duration::from_secs(5);

/// Asks the daemon.
pub async fn ask(address: SocketAddr) -> anyhow::Result<Status> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    ask_through(socket, address).await
}

/// Asks the daemon through a socket, which may be of another network namespace.
pub async fn ask_through(socket: TcpSocket, address: SocketAddr) -> anyhow::Result<Status> {
    let answer = tokio::time::timeout(LIMIT, get(socket, address))
        .await
        .with_context(|| format!("seaway-overlay at {address} does not answer"))?
        .with_context(|| format!("seaway-overlay does not run at {address}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("seaway-overlay at {address} gave no HTTP answer");
    };
    if !head.starts_with("HTTP/1.1 200") {
        bail!(
            "seaway-overlay at {address}: {}",
            head.lines().next().unwrap_or_default()
        );
    }
    serde_json::from_str(body).with_context(|| format!("the answer of {address} is no status"))
}

async fn get(socket: TcpSocket, address: SocketAddr) -> std::io::Result<String> {
    let mut stream = socket.connect(address).await?;
    let request = format!("GET /status HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// For people.
pub fn table(status: &Status) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let mtu = status.mtu.map_or("-".into(), |mtu| mtu.to_string());
    let mut text = format!(
        "node {}: {}\n  address {} on {}, pods {}, mtu {mtu}\n",
        status.node,
        if status.in_sync {
            "in sync"
        } else {
            "not in sync"
        },
        or_none(&status.address),
        or_none(&status.uplink),
        joined(&status.pod_cidrs),
    );
    for error in &status.errors {
        text += &format!("  error: {error}\n");
    }
    text += &format!("\n{:<20} {:<24} {:<24} STATE\n", "PEER", "ADDRESS", "PODS");
    for peer in &status.peers {
        let (address, pods) = (or_none(&peer.address), joined(&peer.pod_cidrs));
        text += &format!(
            "{:<20} {address:<24} {pods:<24} {}\n",
            peer.name, peer.state
        );
    }
    text
}

fn joined(cidrs: &[String]) -> String {
    if cidrs.is_empty() {
        return "-".into();
    }
    cidrs.join(",")
}
