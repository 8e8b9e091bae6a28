//! `status`: what the running daemon found last.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use seaway_daemon::answer_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::admin::Status;
use crate::probe::path::Health;

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
    let who = format!("seaway-overlay at {address} (--healthz-bind-address)");
    let answer = answer_of(&who, Some(LIMIT), get(socket, address))
        .await?
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
    let number = |number: Option<u32>| number.map_or("-".into(), |number| number.to_string());
    let mut text = format!(
        "node {}: {}\n  address {} on {}, pods {}, mtu {}\n  VXLAN {} at UDP port {}, checksums by {}, {} packets of \
         strangers dropped\n",
        status.node,
        if status.in_sync {
            "in sync"
        } else {
            "not in sync"
        },
        or_none(&status.address),
        or_none(&status.uplink),
        joined(&status.pod_cidrs),
        number(status.mtu),
        status.vni,
        status.port,
        match (status.mtu, status.checksum_offload) {
            // The device was not looked at.
            (None, _) => "-",
            (_, true) => "the network card",
            (_, false) => "this node",
        },
        status.strangers,
    );
    for error in &status.errors {
        text += &format!("  error: {error}\n");
    }
    for warning in &status.warnings {
        text += &format!("  warning: {warning}\n");
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for peer in &status.peers {
        let changed = peer.last_change.as_ref();
        rows.push([
            peer.name.clone(),
            or_none(&peer.address),
            joined(&peer.pod_cidrs),
            or_none(&peer.via),
            match peer.reachable {
                Health::Unknown => "-".into(),
                Health::Works => "yes".into(),
                Health::Broken => "NO".into(),
            },
            number(peer.mtu),
            match peer.checksum_offload {
                Health::Unknown => "-".into(),
                Health::Works => "works".into(),
                Health::Broken => "BROKEN".into(),
            },
            changed.map_or("-".into(), |c| format!("{:.0} {}", c.at, c.what)),
            peer.state.clone(),
        ]);
    }
    text.push('\n');
    text + &aligned(&rows)
}

const COLUMNS: [&str; 9] = [
    "PEER",
    "ADDRESS",
    "PODS",
    "VIA",
    "REACHABLE",
    "MTU",
    "OFFLOAD",
    "LAST CHANGE",
    "STATE",
];

/// Columns as wide as their widest cell; the last one is not filled up.
fn aligned(rows: &[[String; COLUMNS.len()]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS.len() - 1)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text += &format!("{cell:<width$}  ");
        }
        text += &format!("{}\n", row[COLUMNS.len() - 1]);
    }
    text
}

fn joined(cidrs: &[String]) -> String {
    if cidrs.is_empty() {
        return "-".into();
    }
    cidrs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{CONNECTED, Change, PeerStatus};

    #[test]
    fn every_peer_is_explained() {
        let at = "2026-11-22T01:02:03.4Z".parse().unwrap();
        let change = |what: &str| {
            let what = what.into();
            Some(Change { at, what })
        };
        let status = Status {
            node: "n1".into(),
            in_sync: true,
            address: Some("192.168.0.1".into()),
            pod_cidrs: vec!["10.244.1.0/24".into()],
            uplink: Some("eth0".into()),
            mtu: Some(1450),
            vni: 1,
            port: 8472,
            checksum_offload: true,
            strangers: 3,
            peers: vec![
                PeerStatus {
                    address: Some("192.168.0.2".into()),
                    pod_cidrs: vec!["10.244.2.0/24".into()],
                    via: Some("tunnel".into()),
                    reachable: Health::Works,
                    mtu: Some(1400),
                    checksum_offload: Health::Broken,
                    last_change: change("joined"),
                    ..PeerStatus::new("n2", CONNECTED.into())
                },
                PeerStatus::new("n3", "node n3 has no spec.podCIDRs yet".into()),
            ],
            errors: Vec::new(),
            warnings: vec!["something".into()],
        };
        expect_test::expect![[r#"
            node n1: in sync
              address 192.168.0.1 on eth0, pods 10.244.1.0/24, mtu 1450
              VXLAN 1 at UDP port 8472, checksums by the network card, 3 packets of strangers dropped
              warning: something

            PEER  ADDRESS      PODS           VIA     REACHABLE  MTU   OFFLOAD  LAST CHANGE                  STATE
            n2    192.168.0.2  10.244.2.0/24  tunnel  yes        1400  BROKEN   2026-11-22T01:02:03Z joined  connected
            n3    -            -              -       -          -     -        -                            node n3 has no spec.podCIDRs yet
        "#]]
        .assert_eq(&table(&status));
        let unknown = Status {
            mtu: None,
            checksum_offload: false,
            ..status.clone()
        };
        assert!(table(&unknown).contains("mtu -\n") && table(&unknown).contains("checksums by -,"));
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
