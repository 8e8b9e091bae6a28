//! `seaway echo`: the built-in workload.

use anyhow::Context as _;
use clap::Args;
use seaway_daemon::stop_signal;
use seaway_lab::traffic::answer::Identity;
use seaway_lab::traffic::echo::EchoServer;

#[derive(Args)]
pub(crate) struct EchoArgs {
    /// TCP port, for lines and HTTP
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    tcp: u16,

    /// UDP port
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    udp: u16,
}

pub(crate) async fn run(args: EchoArgs) -> anyhow::Result<()> {
    let identity = Identity::from_env();
    let stop = stop_signal()?;
    let server = EchoServer::bind(identity, args.tcp, args.udp)
        .await
        .with_context(|| format!("cannot listen on TCP {} and UDP {}", args.tcp, args.udp))?;
    eprintln!(
        "echo: TCP {}, UDP {}",
        server.tcp_addr()?,
        server.udp_addr()?
    );
    tokio::select! {
        served = server.serve() => served.context("cannot go on serving")?,
        () = stop => {}
    }
    Ok(())
}
