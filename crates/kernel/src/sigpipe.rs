//! What becomes of a program when nobody reads its output any more.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has this process end without a word once who reads its output has gone (`| head`, or `q` in a pager), as other programs do.
/// Rust ignores the signal, and `println!` panics. For commands that only show something: one that is at work in the kernel
/// must finish, and a program that it feeds may close its input early.
#[expect(unsafe_code, reason = "signal dispositions have no safe wrapper")]
pub fn end_with_reader() {
    // SAFETY: no handler of ours is installed or replaced, the default one is.
    let done = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    // It fails for numbers that are no signal only.
    debug_assert!(done.is_ok());
}
