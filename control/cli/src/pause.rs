//! `seaway pause`, and the signals that end any foreground command.

use tokio::signal::unix::{SignalKind, signal};

pub(crate) async fn run() -> anyhow::Result<()> {
    Ok(told_to_stop().await?)
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
