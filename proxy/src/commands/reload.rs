//! SIGHUP: the configuration is read anew, and the mode taken from it.

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};

use crate::cli::{Mode, RunArgs};
use crate::config::{Config, RunConfig};
use crate::switch::{Order, Teller};

/// Follows the signal for as long as the daemon runs. `running` is the configuration that it was started with.
pub(super) async fn on_hangup(
    mut hangup: Signal,
    args: RunArgs,
    running: (Config, RunConfig),
    mode: watch::Receiver<Mode>,
    orders: mpsc::Sender<Order>,
) {
    while hangup.recv().await.is_some() {
        let in_force = *mode.borrow();
        match wanted(&args, &running) {
            Ok(wanted) if wanted == in_force => {
                tracing::info!(mode = wanted.as_str(), "SIGHUP: the mode stays");
            }
            Ok(wanted) => {
                tracing::info!(mode = wanted.as_str(), "SIGHUP: the mode changes");
                let order = Order {
                    mode: wanted,
                    teller: Teller::log(),
                };
                // A closed channel is the daemon on its way out.
                let _ = orders.send(order).await;
            }
            Err(error) => tracing::error!(%error, "SIGHUP: everything stays as it is"),
        }
    }
}

/// The configured mode, as it is now. Says what else has changed, which a new start takes over.
fn wanted(args: &RunArgs, (config, run): &(Config, RunConfig)) -> anyhow::Result<Mode> {
    let Some(file) = &args.node.config else {
        anyhow::bail!(
            "without --config there is no file to read: `seaway-proxy switch MODE` changes the mode"
        );
    };
    let (read, read_run) = Config::for_run(args)?;
    let differing = config.differences(run, &read, &read_run);
    if !differing.is_empty() {
        tracing::warn!(
            file = %file.display(),
            "SIGHUP takes over the mode alone; these have changed too and count from the next start on: {}",
            differing.join(", ")
        );
    }
    if args.node.mode.is_some() {
        tracing::warn!("SIGHUP: --mode (or SEAWAY_PROXY_MODE) goes before the mode in the file");
    }
    Ok(read.mode)
}
