//! A process in one namespace: it serves, or runs flows, and ends with its standard input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use super::client;
use super::crowd::Group;
use super::report::Report;

/// The port of all servers.
pub const PORT: u16 = 8080;

/// Of a server's datagrams, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "flows";

/// Serve, or run flows until standard input ends, then say what came of them
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Serve, and put this in front of every answer
    #[arg(long)]
    tag: Option<u8>,
    /// Flows to run, as JSON
    #[arg(long)]
    group: Vec<String>,
}

/// The subcommand.
pub async fn run(args: &FlowsArgs) -> Result<()> {
    if let Some(tag) = args.tag {
        serve(tag).await?;
        println!("ready");
        return end_of_input().await;
    }
    let groups = args.group.iter();
    let groups: Vec<Group> = groups
        .map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>()?;
    let (stopping, stop) = watch::channel(false);
    let (begun, mut first_answers) = mpsc::unbounded_channel();
    let mut flows = Vec::new();
    for group in &groups {
        for _ in 0..group.flows {
            let number = u64::from(std::process::id()) << 32 | flows.len() as u64;
            let flow = client::run(number, group.kind, group.to, begun.clone(), stop.clone());
            flows.push(tokio::spawn(flow));
        }
    }
    for _ in 0..flows.len() {
        first_answers.recv().await;
    }
    println!("ready");
    end_of_input().await?;
    stopping.send(true)?;
    let mut report = Report::default();
    for flow in flows {
        report.add(flow.await?);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn end_of_input() -> Result<()> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    read.await?;
    Ok(())
}

/// Serves both protocols of both families.
async fn serve(tag: u8) -> Result<()> {
    for any in [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        let at = SocketAddr::new(any, PORT);
        let socket = match any {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        let bound = || format!("serve at {at}");
        socket.bind(at).with_context(bound)?;
        let listener = socket.listen(1024)?;
        let datagrams = UdpSocket::bind(at).await.with_context(bound)?;
        // A datagram of every flow at once: a server that has to wait for a busy machine loses none.
        setsockopt(&datagrams, RcvBufForce, &RECEIVE_BUFFER)?;
        tokio::spawn(serve_streams(listener, tag));
        tokio::spawn(serve_datagrams(datagrams, tag));
    }
    Ok(())
}

async fn serve_streams(listener: TcpListener, tag: u8) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_stream(stream, tag));
    }
}

/// Answers message by message, until the client has gone.
async fn serve_stream(mut stream: TcpStream, tag: u8) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut head = [0; client::HEAD];
        stream.read_exact(&mut head).await?;
        let mut answer = vec![0; client::TAG + client::length(&head)];
        let (before, rest) = answer.split_at_mut(client::TAG + client::HEAD);
        before[0] = tag;
        before[client::TAG..].copy_from_slice(&head);
        stream.read_exact(rest).await?;
        stream.write_all(&answer).await?;
    }
}

async fn serve_datagrams(socket: UdpSocket, tag: u8) {
    let mut buffer = vec![0; 4096];
    buffer[0] = tag;
    loop {
        // Errors are those of answers to clients that have gone.
        if let Ok((length, from)) = socket.recv_from(&mut buffer[client::TAG..]).await {
            let _ = socket.send_to(&buffer[..client::TAG + length], from).await;
        }
    }
}
