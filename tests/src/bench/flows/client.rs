//! One flow: numbered messages, one after the other, of which each has to come back whole and from the same backend.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::crowd::Kind;
use super::report::Report;

/// Between two messages of a flow.
const PAUSE: Duration = Duration::from_millis(40);
/// Between two connections of a flow that makes one for each message: each stays in tables for two minutes.
const PAUSE_ANEW: Duration = Duration::from_millis(400);
/// A datagram that has not come back by then is lost. A busy machine takes its time.
const DATAGRAM: Duration = Duration::from_secs(3);
/// A connection that says nothing for so long is broken: retransmissions have been tried several times by then.
const STREAM: Duration = Duration::from_secs(20);

/// In front of what is echoed: who answers.
pub(super) const TAG: usize = 1;
/// In front of a message: the flow and the message's number.
pub(super) const HEAD: usize = 16;

/// How long the message of this head is.
pub(super) fn length(head: &[u8; HEAD]) -> usize {
    let number = head[HEAD / 2..].iter();
    let number = number.fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    HEAD + (number.wrapping_mul(37) % 1200) as usize
}

/// A message of a flow, which differs from every other.
fn message(flow: u64, number: u64) -> Vec<u8> {
    let mut head = [0; HEAD];
    head[..HEAD / 2].copy_from_slice(&flow.to_be_bytes());
    head[HEAD / 2..].copy_from_slice(&number.to_be_bytes());
    let length = length(&head);
    let mut bytes = head.to_vec();
    bytes.extend((HEAD..length).map(|at| (at as u64 ^ number ^ flow) as u8));
    bytes
}

enum Talk {
    Stream(TcpStream),
    /// A connection for each message.
    Streams(SocketAddr),
    Datagrams(UdpSocket, Option<SocketAddr>),
}

impl Talk {
    async fn begin(kind: Kind, to: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        Ok(match kind {
            Kind::Tcp => Self::Stream(connect(to).await?),
            Kind::TcpAnew => Self::Streams(to),
            Kind::UdpConnected => {
                let socket = UdpSocket::bind(any).await?;
                socket.connect(to).await?;
                Self::Datagrams(socket, None)
            }
            Kind::Udp => Self::Datagrams(UdpSocket::bind(any).await?, Some(to)),
        })
    }

    /// One message there and back; the tag in front of the answer.
    async fn exchange(&mut self, message: &[u8]) -> io::Result<u8> {
        let mut answer = vec![0; TAG + message.len()];
        match self {
            Self::Stream(stream) => echo(stream, message, &mut answer).await?,
            Self::Streams(to) => echo(&mut connect(*to).await?, message, &mut answer).await?,
            Self::Datagrams(socket, to) => {
                match to {
                    Some(to) => socket.send_to(message, *to).await?,
                    None => socket.send(message).await?,
                };
                let from = timeout(DATAGRAM, receive(socket, message, &mut answer)).await??;
                if to.is_some_and(|to| to != from) {
                    return Err(io::Error::other("an answer from another address"));
                }
            }
        }
        if answer[TAG..] != *message {
            return Err(io::Error::other("other bytes than were sent"));
        }
        Ok(answer[0])
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Streams(_))
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(STREAM, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn echo(stream: &mut TcpStream, message: &[u8], answer: &mut [u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    timeout(STREAM, stream.read_exact(answer)).await??;
    Ok(())
}

/// The answer to this message; late ones to earlier messages were counted as lost.
async fn receive(socket: &UdpSocket, message: &[u8], answer: &mut [u8]) -> io::Result<SocketAddr> {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        let got = &buffer[..length];
        if got.len() == answer.len() && got[TAG..TAG + HEAD] == message[..HEAD] {
            answer.copy_from_slice(got);
            return Ok(from);
        }
    }
}

/// Runs a flow until `stop` says so; `begun` is told of the first answer.
pub(super) async fn run(
    flow: u64,
    kind: Kind,
    to: SocketAddr,
    begun: tokio::sync::mpsc::UnboundedSender<()>,
    mut stop: watch::Receiver<bool>,
) -> Report {
    let mut report = Report {
        flows: 1,
        ..Report::default()
    };
    let mut talk = match Talk::begin(kind, to).await {
        Ok(talk) => talk,
        Err(error) => {
            report.broken = 1;
            report.note(format!("{kind:?} to {to} did not begin: {error}"));
            let _ = begun.send(());
            return report;
        }
    };
    let pause = match kind {
        Kind::TcpAnew => PAUSE_ANEW,
        _ => PAUSE,
    };
    let mut first = None;
    let mut number = 0;
    while !*stop.borrow() {
        let message = message(flow, number);
        let length = message.len() as u64;
        report.messages += 1;
        let asked = Instant::now();
        match talk.exchange(&message).await {
            Ok(tag) => {
                report.bytes += length;
                if *first.get_or_insert(tag) != tag && report.changed == 0 {
                    report.changed = 1;
                    report.note(format!("{kind:?} to {to} changed its backend"));
                }
            }
            Err(error) => {
                report.lost_bytes += length;
                report.note(format!("{kind:?} to {to}: {error}"));
                // What a connection has lost it does not get back.
                if talk.is_stream() {
                    report.broken = 1;
                    break;
                }
            }
        }
        if number == 0 {
            let _ = begun.send(());
        } else {
            let waited = asked.elapsed().as_millis();
            report.longest_ms = report
                .longest_ms
                .max(u64::try_from(waited).unwrap_or(u64::MAX));
        }
        number += 1;
        let _ = timeout(pause, stop.changed()).await;
    }
    // Also where the first message was the last.
    let _ = begun.send(());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_messages_are_alike() {
        let mut seen = std::collections::BTreeSet::new();
        for flow in 0..50 {
            for number in 0..50 {
                let message = message(flow, number);
                assert!(message.len() >= HEAD && message.len() < 1300);
                assert!(seen.insert(message), "{flow} {number}");
            }
        }
    }
}
