//! The probe: numbered requests at a steady pace, each with its own verdict.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Answer;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A new connection for each request, unless [`Probe::keep`].
    Tcp,
    /// A new socket for each request, unless [`Probe::keep`].
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What to ask, how often.
#[derive(Debug, Clone)]
pub struct Probe {
    pub transport: Transport,
    pub target: SocketAddr,
    /// Number of requests; `None` goes on until it is stopped.
    pub count: Option<u64>,
    /// Between the starts of two requests: a slow answer does not hold back the next request.
    pub interval: Duration,
    /// For one request, connecting included.
    pub timeout: Duration,
    /// One connection (or socket) for all requests, one after the other.
    pub keep: bool,
}

/// One request and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub n: u64,
    /// When it started, in milliseconds since 1970.
    pub at: u64,
    pub ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All requests of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub sent: u64,
    pub answered: u64,
    pub failed: u64,
    /// Answers per pod.
    pub pods: BTreeMap<String, u64>,
    /// Failures per reason.
    pub errors: BTreeMap<String, u64>,
    pub slowest_ms: f64,
}

impl Probe {
    /// Runs until `count` is reached or `stop` is done; calls `each` for every attempt, in the order of their ends.
    pub async fn run(
        &self,
        mut each: impl FnMut(&Attempt),
        stop: impl Future<Output = ()>,
    ) -> Summary {
        let (report, mut reports) = mpsc::unbounded_channel();
        let driver = async {
            if self.keep {
                self.in_turn(report).await;
            } else {
                self.side_by_side(report).await;
            }
        };
        tokio::pin!(driver, stop);
        let mut summary = Summary::default();
        let (mut driving, mut stopped) = (true, false);
        loop {
            tokio::select! {
                attempt = reports.recv() => match attempt {
                    Some(attempt) => {
                        summary.count(&attempt);
                        each(&attempt);
                    }
                    None => return summary,
                },
                () = &mut driver, if driving => driving = false,
                () = &mut stop, if !stopped => {
                    stopped = true;
                    if driving {
                        // No new requests; those on their way are cut off with the driver and count for nothing.
                        return summary;
                    }
                }
            }
        }
    }

    fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let last = self.count.unwrap_or(u64::MAX);
        1..=last
    }

    async fn side_by_side(&self, report: mpsc::UnboundedSender<Attempt>) {
        let mut pace = tokio::time::interval(self.interval.max(Duration::from_micros(100)));
        for n in self.numbers() {
            pace.tick().await;
            let (probe, report) = (self.clone(), report.clone());
            tokio::spawn(async move {
                let attempt = probe
                    .attempt(n, async |line| {
                        Connection::open(&probe).await?.ask(line).await
                    })
                    .await;
                // The receiver is gone when the run was stopped: nobody wants this any more.
                let _ = report.send(attempt);
            });
        }
    }

    async fn in_turn(&self, report: mpsc::UnboundedSender<Attempt>) {
        let mut pace = tokio::time::interval(self.interval.max(Duration::from_micros(100)));
        let mut connection = None;
        for n in self.numbers() {
            pace.tick().await;
            let attempt = self
                .attempt(n, async |line| {
                    let mut open = match connection.take() {
                        Some(open) => open,
                        None => Connection::open(self).await?,
                    };
                    let answer = open.ask(line).await?;
                    connection = Some(open);
                    Ok(answer)
                })
                .await;
            if report.send(attempt).is_err() {
                return;
            }
        }
    }

    async fn attempt(&self, n: u64, ask: impl AsyncFnOnce(&str) -> io::Result<Answer>) -> Attempt {
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = at.map_or(0, |since| since.as_millis() as u64);
        let start = Instant::now();
        let line = format!("request {n}");
        let outcome = match timeout(self.timeout, ask(&line)).await {
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
            Ok(Err(error)) => Err(reason(&error)),
            Ok(Ok(answer)) if answer.echo != line => Err("answer to another request".to_owned()),
            Ok(Ok(answer)) => Ok(answer),
        };
        let ms = (start.elapsed().as_secs_f64() * 100_000.0).round() / 100.0;
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        Attempt {
            n,
            at,
            ms,
            answer,
            error,
        }
    }
}

impl Summary {
    /// Takes one attempt in.
    pub fn count(&mut self, attempt: &Attempt) {
        self.sent += 1;
        match (&attempt.answer, &attempt.error) {
            (Some(answer), _) => {
                self.answered += 1;
                *self.pods.entry(answer.pod.clone()).or_default() += 1;
            }
            (None, error) => {
                self.failed += 1;
                let reason = error.clone().unwrap_or_default();
                *self.errors.entry(reason).or_default() += 1;
            }
        }
        self.slowest_ms = self.slowest_ms.max(attempt.ms);
    }
}

enum Connection {
    Tcp(Tcp),
    Udp(Udp),
}

impl Connection {
    async fn open(probe: &Probe) -> io::Result<Self> {
        Ok(match probe.transport {
            Transport::Tcp => Self::Tcp(Tcp::connect(probe.target).await?),
            Transport::Udp => Self::Udp(Udp::connect(probe.target).await?),
        })
    }

    async fn ask(&mut self, line: &str) -> io::Result<Answer> {
        match self {
            Self::Tcp(tcp) => tcp.ask(line).await,
            Self::Udp(udp) => udp.ask(line).await,
        }
    }
}

struct Tcp(BufReader<TcpStream>);

impl Tcp {
    async fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn ask(&mut self, line: &str) -> io::Result<Answer> {
        self.0.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        if self.0.read_line(&mut answer).await? == 0 {
            return Err(io::Error::other("closed without an answer"));
        }
        understand(answer.as_bytes())
    }
}

struct Udp(UdpSocket);

impl Udp {
    async fn connect(target: SocketAddr) -> io::Result<Self> {
        let any = if target.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(target).await?;
        Ok(Self(socket))
    }

    async fn ask(&mut self, line: &str) -> io::Result<Answer> {
        self.0.send(line.as_bytes()).await?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.0.recv(&mut buffer).await?;
            let answer = understand(&buffer[..length])?;
            // A late answer to an earlier request on the same socket is not a fault of this one.
            if answer.echo == line {
                return Ok(answer);
            }
        }
    }
}

fn understand(bytes: &[u8]) -> io::Result<Answer> {
    serde_json::from_slice(bytes).map_err(|_| io::Error::other("answer not understood"))
}

/// A reason that is the same for all requests that fail alike, so that it can be counted.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
