//! The signals that end a daemon.

use tokio::signal::unix::{SignalKind, signal};

/// The handlers are in place when this returns; what it returns resolves at SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
