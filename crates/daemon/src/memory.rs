//! What the allocator keeps of memory that is free.
#![cfg_attr(
    target_env = "gnu",
    expect(
        unsafe_code,
        reason = "the knobs of the allocator have no safe wrappers"
    )
)]

/// Has all threads allocate from one heap. glibc gives each a heap of its own, and what lists leave there between the
/// objects that stay is of no use to the others: a sixth of a large daemon. Our threads seldom allocate at the same
/// time. Call it before any thread is started; does nothing with another C library.
pub fn share_memory() {
    // SAFETY: it sets a number, on which nothing else depends; no other thread is there yet to read it.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel. The lists that a daemon begins with, and the plan that it makes of them, are
/// as large as all that it keeps afterwards; glibc holds on to what they leave (malloc_trim(3)). Takes milliseconds:
/// for after such a moment, not for every change. Does nothing with another C library.
pub fn release_memory() {
    // SAFETY: any thread may call it at any time; it touches memory that nobody owns.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
