//! Tasks whose result is waited for.

use tokio::task::JoinError;

use super::error::EbpfError;

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EbpfError> + Send + 'static,
) -> Result<T, EbpfError> {
    finished(tokio::task::spawn_blocking(work).await)
}

/// What a task gave; its panic goes on in the caller.
pub(super) fn finished<T>(task: Result<T, JoinError>) -> T {
    task.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
