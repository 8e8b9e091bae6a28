//! The echo server: TCP line by line, HTTP for probes and curl, UDP datagram by datagram.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::debug;

use super::answer::Identity;

/// Longest request line that is read; what is longer is cut off by closing the connection.
const LONGEST_LINE: u64 = 64 * 1024;

/// A server that has its ports already, so that a port in use is an error before anything is served.
#[derive(Debug)]
pub struct EchoServer {
    identity: Identity,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl EchoServer {
    /// Opens both ports on every address of both families; 0 picks a free one.
    pub async fn bind(identity: Identity, tcp: u16, udp: u16) -> io::Result<Self> {
        Ok(Self {
            identity,
            tcp: bind_tcp(tcp).await?,
            udp: bind_udp(udp).await?,
        })
    }

    /// Where it listens for TCP.
    pub fn tcp_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Where it listens for UDP.
    pub fn udp_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Serves until it is dropped, or a listening socket fails.
    pub async fn serve(self) -> io::Result<()> {
        let Self { identity, tcp, udp } = self;
        tokio::try_join!(serve_tcp(identity.clone(), tcp), serve_udp(identity, udp))?;
        Ok(())
    }
}

/// Dual stack where the kernel has IPv6, else IPv4 alone.
async fn bind_tcp(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(e) if no_ipv6(&e) => TcpListener::bind(("0.0.0.0", port)).await,
        other => other,
    }
}

async fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(e) if no_ipv6(&e) => UdpSocket::bind(("0.0.0.0", port)).await,
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

async fn serve_tcp(identity: Identity, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The client gave up before we came to it; the listener is fine.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e),
        };
        let identity = identity.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(&identity, stream, peer).await {
                debug!(%peer, %error, "connection ended");
            }
        });
    }
}

async fn converse(identity: &Identity, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = plain(stream.local_addr()?);
    let peer = plain(peer);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(line) = next_line(&mut read).await? {
        let answer = identity.answer(local, peer, &line).to_line();
        if line.starts_with("GET ") {
            // Reading the header to its end keeps the kernel from resetting the connection under the answer.
            while next_line(&mut read)
                .await?
                .is_some_and(|line| !line.trim().is_empty())
            {}
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            write.write_all(head.as_bytes()).await?;
            write.write_all(answer.as_bytes()).await?;
            return write.shutdown().await;
        }
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// One line, or `None` at the end of the stream.
async fn next_line<R: AsyncRead + Unpin>(read: &mut BufReader<R>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let length = read
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut bytes)
        .await?;
    if length == 0 {
        return Ok(None);
    }
    if length as u64 == LONGEST_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

async fn serve_udp(identity: Identity, socket: UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let port = socket.local_addr()?.port();
    // A wildcard socket does not know which address it was sent to; a pod has one, and the agent told us.
    let own = std::env::var("POD_IP")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(socket.local_addr()?, |ip| SocketAddr::new(ip, port));
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error for an earlier answer.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        let request = String::from_utf8_lossy(&buffer[..length]);
        let answer = identity.answer(plain(own), plain(peer), &request).to_line();
        if let Err(error) = socket.send_to(answer.as_bytes(), peer).await {
            debug!(%peer, %error, "answer not sent");
        }
    }
}

/// An IPv4 address as such, where a dual-stack socket says `::ffff:a.b.c.d`.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
