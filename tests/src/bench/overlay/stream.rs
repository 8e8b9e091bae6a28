//! Traffic between two namespaces: one TCP stream, and datagrams to and fro. Blocking, on threads of this process, so that
//! nothing but the kernel is in the way.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;
use seaway_kernel::NetNs;

/// The port of both servers of the scenario.
pub const PORT: u16 = 9000;

/// What is written at once: what iperf3 takes.
const CHUNK: usize = 128 * 1024;

/// A datagram of this size goes there and back.
const PING: usize = 64;

/// The congestion control of nearly every node, since it is the default of Linux.
pub const CUBIC: &str = "cubic";

/// Sends at a pace of its own, by timers: that of what it has seen arrive.
const BBR: &str = "bbr";

/// For an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Serves streams as told and sends datagrams back, until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Both, at a port in a namespace. The next stream comes after `serve` has ended.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start(
        netns: &NetNs,
        port: u16,
        serve: impl Fn(TcpStream) + Send + 'static,
    ) -> Result<Self> {
        Self::start_at(netns, (Ipv4Addr::UNSPECIFIED, port).into(), serve)
    }

    /// The same, at an address.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start_at(
        netns: &NetNs,
        at: SocketAddr,
        serve: impl Fn(TcpStream) + Send + 'static,
    ) -> Result<Self> {
        let (listener, socket) = netns.run(|| -> io::Result<_> {
            let listener = TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            let socket = UdpSocket::bind(at)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok((listener, socket))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = |stop: &Arc<AtomicBool>| {
            let stop = Arc::clone(stop);
            move || stop.load(Ordering::Relaxed)
        };
        let (accepts, echoes) = (ended(&stop), ended(&stop));
        let threads = vec![
            std::thread::spawn(move || {
                while !accepts() {
                    match listener.accept() {
                        Ok((stream, _)) => serve(stream),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !echoes() {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        // Who asked may be gone.
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
            }),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads to the end, and tells how much that was.
pub fn take(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut buffer = vec![0; CHUNK];
    let mut taken: u64 = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&taken.to_be_bytes()),
            count => taken += count as u64,
        }
    }
}

/// The congestion controls to measure by. A stream is never left to the machine's default: where the sender keeps a pace of its
/// own, ways look more alike than they are.
///
/// # Errors
///
/// If the kernel does not say which it has.
pub fn controls() -> io::Result<impl Iterator<Item = &'static str>> {
    let there = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
    let bbr = there.split_whitespace().any(|name| name == BBR);
    Ok([CUBIC].into_iter().chain(bbr.then_some(BBR)))
}

/// One stream for so long: bytes a second that arrived, and processor time of the whole machine for each of them.
pub fn throughput(
    from: &NetNs,
    to: SocketAddr,
    control: &str,
    time: Duration,
) -> Result<(f64, f64)> {
    let sent = from.run(|| -> io::Result<(f64, f64)> {
        let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
        setsockopt(&stream, TcpCongestion, &control.into())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let chunk = vec![7; CHUNK];
        let (busy, start) = (busy_seconds()?, Instant::now());
        while start.elapsed() < time {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut taken = [0; 8];
        stream.read_exact(&mut taken)?;
        let took = start.elapsed().as_secs_f64();
        let taken = u64::from_be_bytes(taken) as f64;
        Ok((taken / took, (busy_seconds()? - busy) / taken))
    })?;
    sent.with_context(|| format!("a stream to {to} by {control}"))
}

/// Microseconds of each of so many datagrams there and back, one after the other.
pub fn round_trips(from: &NetNs, to: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let times = from.run(|| -> io::Result<Vec<f64>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let (ping, mut pong) = ([7; PING], [0; PING]);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            socket.send(&ping)?;
            socket.recv(&mut pong)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    })?;
    times.with_context(|| format!("datagrams to {to}"))
}

/// Processor time of all processors that was not idle: most of what a packet costs is spent in no process's name.
fn busy_seconds() -> io::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    busy(&text).ok_or_else(|| io::Error::other("/proc/stat is not as proc(5) says"))
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, in hundredths of a second.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let at = |index: usize| ticks.get(index).copied();
    let busy = at(0)? + at(1)? + at(2)? + at(5)? + at(6)?;
    Some(busy as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_idle_is_busy() {
        let stat = "cpu  100 10 200 9999 8888 30 60 5 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy(stat), Some(4.0));
        assert_eq!(busy("intr 1\n"), None);
    }

    #[test]
    fn a_stream_and_datagrams_arrive() {
        let here = NetNs::anonymous().unwrap();
        let _server = Server::start(&here, PORT, |stream| drop(take(stream))).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], PORT));
        for control in controls().unwrap() {
            let (rate, _) = throughput(&here, to, control, Duration::from_millis(50)).unwrap();
            assert!(rate > 1e6, "{control}: {rate}");
        }
        assert_eq!(round_trips(&here, to, 20).unwrap().len(), 20);
    }
}
