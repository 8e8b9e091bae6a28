//! Asking a daemon's health endpoint from inside its namespace.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use seaway_kernel::NetNs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::LabError;

const LIMIT: Duration = Duration::from_secs(2);

/// Where the proxy says whether it is in sync.
pub(crate) const PROXY: u16 = 10256;
/// Where the overlay does.
pub(crate) const OVERLAY: u16 = 10260;

/// `GET /healthz` on the loopback of a namespace: `Ok` for 200, else what was seen.
pub(crate) async fn healthz(netns: &NetNs, port: u16) -> Result<(), String> {
    let socket = open(netns).map_err(|error| error.to_string())?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    match tokio::time::timeout(LIMIT, get(socket, addr)).await {
        Err(_) => Err("no answer".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(head)) if head.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(Ok(head)) => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

/// A socket belongs to the namespace that it was made in, wherever it is used from later.
fn open(netns: &NetNs) -> Result<TcpSocket, LabError> {
    let _inside = netns.enter()?;
    TcpSocket::new_v4().map_err(LabError::file("open", "a socket"))
}

async fn get(socket: TcpSocket, addr: SocketAddr) -> io::Result<String> {
    let mut stream = socket.connect(addr).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
