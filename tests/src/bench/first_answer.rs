//! The client that waits for a new replica. It runs as a process of its own inside of a pod, because only there it
//! is seen by everything that a mode does: rules of the node's namespace, hooks of its cgroup.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use seaway_kernel::{Process, Signal, Spawn};
use seaway_lab::traffic::Answer;
use seaway_lab::{Place, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;

/// Between two connections. Each is to a replica by chance, so this is the resolution of what is measured.
const PAUSE: Duration = Duration::from_micros(500);

/// For one connection. Shorter than the first retransmission of a SYN (1 s), so that a lost one is a failure.
const ONE: Duration = Duration::from_millis(500);

/// For everything: more than a pod may take to start on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "first-answer";

/// Ask a Service on ever new connections until a pod answers that is not one of the known; prints `asking` with
/// the first answer, then `NANOSECONDS POD FAILURES`
#[derive(Debug, Args)]
pub struct FirstAnswerArgs {
    /// Address and port of the Service
    target: SocketAddr,
    /// Pods that answer already
    #[arg(long, required = true)]
    known: Vec<String>,
}

/// What the client saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAnswer {
    /// When, as nanoseconds since 1970: the clock that all processes of a machine share.
    pub at: u128,
    pub pod: String,
    /// Connections without an answer meanwhile.
    pub failures: u64,
}

/// Now, on the clock of [`FirstAnswer::at`].
pub fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

/// Milliseconds between two times of [`now`]; negative if `to` was first.
pub fn milliseconds(from: u128, to: u128) -> f64 {
    (to as f64 - from as f64) / 1e6
}

/// The subcommand.
pub async fn run(args: &FirstAnswerArgs) -> Result<()> {
    let known: BTreeSet<&str> = args.known.iter().map(String::as_str).collect();
    let start = tokio::time::Instant::now();
    let (mut failures, mut asking) = (0, false);
    while start.elapsed() < LIMIT {
        match tokio::time::timeout(ONE, ask(args.target)).await {
            Ok(Ok(answer)) => {
                let at = now();
                if !known.contains(answer.pod.as_str()) {
                    println!("{at} {} {failures}", answer.pod);
                    return Ok(());
                }
                if !asking {
                    println!("asking");
                    asking = true;
                }
            }
            Ok(Err(_)) | Err(_) => failures += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("no new pod answered within {LIMIT:?} ({failures} failures)")
}

async fn ask(target: SocketAddr) -> io::Result<Answer> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Ends in a reset: thousands of connections must not leave as many ports waiting.
    socket.set_zero_linger()?;
    let mut stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    stream.write_all(b"?\n").await?;
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// A client that runs; ended when dropped.
#[derive(Debug)]
pub struct Waiting {
    process: Process,
    output: PathBuf,
}

impl Waiting {
    /// Starts the client in a pod and waits until it had its first answer.
    pub async fn start(
        place: &Place,
        target: SocketAddr,
        known: &BTreeSet<String>,
        output: PathBuf,
    ) -> Result<Self> {
        ensure!(!known.is_empty(), "some pod must answer already");
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Spawn::new(program)
            .args([SUBCOMMAND, &target.to_string()])
            .args(known.iter().map(|pod| format!("--known={pod}")))
            .netns(place.netns())
            .cgroup(place.cgroup())
            .stdout(&output)
            .stderr(&output)
            .start()?;
        let process = Process::open(child.id())?;
        // Waited for on a thread of its own, so that it never stays a zombie.
        std::thread::spawn(move || child.wait());
        let process = process.context("the client ended at once")?;
        let waiting = Self { process, output };
        eventually(
            "the first answer to the client",
            Duration::from_secs(20),
            async || match waiting.text() {
                text if text.starts_with("asking\n") => Ok(()),
                text => Err(text),
            },
        )
        .await?;
        Ok(waiting)
    }

    /// Waits for its end.
    pub async fn finish(self) -> Result<FirstAnswer> {
        self.process.exited().await?;
        let text = self.text();
        let found = text.lines().find_map(parse);
        found.with_context(|| format!("the client said: {text}"))
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Gone already, unless the run was broken off.
        let _ = self.process.signal(Signal::Kill);
        let _ = std::fs::remove_file(&self.output);
    }
}

fn parse(line: &str) -> Option<FirstAnswer> {
    let mut words = line.split(' ');
    Some(FirstAnswer {
        at: words.next()?.parse().ok()?,
        pod: words.next()?.to_owned(),
        failures: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_client_is_time_pod_failures() {
        let answer = parse("1700000000000000001 echo-1-abc 2").unwrap();
        assert_eq!(answer.at, 1_700_000_000_000_000_001);
        assert_eq!((answer.pod.as_str(), answer.failures), ("echo-1-abc", 2));
        assert_eq!(parse("asking"), None);
        assert_eq!(parse("Error: no new pod answered"), None);
    }

    #[test]
    fn a_difference_may_be_negative() {
        assert!((milliseconds(2_000_000, 500_000) + 1.5).abs() < 1e-9);
    }
}
