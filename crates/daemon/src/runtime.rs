//! The end of a daemon, which waits for nobody.

use std::time::Duration;

use tokio::runtime::Runtime;

/// How long calls that block may take on after the end: writing a file is over by then.
const LINGER: Duration = Duration::from_millis(500);

/// Runs `main` to its end. Calls that block in other threads are then left alone: the look-up of a name that no server answers
/// takes half a minute, and a daemon that is told to stop would take as long.
pub fn block_on<T>(runtime: Runtime, main: impl Future<Output = T>) -> T {
    let result = runtime.block_on(main);
    runtime.shutdown_timeout(LINGER);
    result
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_end_waits_for_no_call_that_blocks() {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let answer = block_on(runtime, async {
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(20)));
            7
        });
        assert_eq!(answer, 7);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
