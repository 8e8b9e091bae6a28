//! `seaway probe`: one JSON line an answer, then a line with the sum.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use seaway_daemon::stop_signal;
use seaway_lab::traffic::{Attempt, Probe, Transport};

#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// How requests travel
    #[arg(value_enum)]
    transport: TransportArg,

    /// The echo server, or a Service in front of some
    #[arg(value_name = "IP:PORT")]
    target: SocketAddr,

    /// Number of requests; 0 goes on until SIGTERM or Ctrl-C
    #[arg(long, default_value_t = 1)]
    count: u64,

    /// Between the starts of two requests
    #[arg(long, value_name = "MS", default_value_t = 100)]
    interval_ms: u64,

    /// For one request, connecting included
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    timeout_ms: u64,

    /// Use one connection (or socket) for all requests instead of a new one for each
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TransportArg {
    Tcp,
    Udp,
}

pub(crate) async fn run(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    let probe = Probe {
        transport: match args.transport {
            TransportArg::Tcp => Transport::Tcp,
            TransportArg::Udp => Transport::Udp,
        },
        target: args.target,
        count: Some(args.count).filter(|count| *count > 0),
        interval: Duration::from_millis(args.interval_ms),
        timeout: Duration::from_millis(args.timeout_ms),
        keep: args.keep,
    };
    let stop = async {
        // Without signals there is nothing to wait for but the end of the count.
        match stop_signal() {
            Ok(stop) => stop.await,
            Err(_) => std::future::pending().await,
        }
    };
    let mut failure = None;
    let print = |attempt: &Attempt| {
        if let Err(error) = line(attempt) {
            failure.get_or_insert(error);
        }
    };
    let summary = probe.run(print, stop).await;
    if let Some(error) = failure {
        return Err(error);
    }
    line(&summary)?;
    Ok(if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A whole line at once: whoever follows the file never reads half of one.
fn line(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
