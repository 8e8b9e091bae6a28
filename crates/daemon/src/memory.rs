//! What the allocator keeps of memory that is free.

/// Gives free memory back to the kernel. The lists that a daemon begins with, and the plan that it makes of them, are
/// as large as all that it keeps afterwards; glibc holds on to what they leave (malloc_trim(3)). Takes milliseconds:
/// for after such a moment, not for every change. Does nothing with another C library.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "malloc_trim has no safe wrapper")
)]
pub fn release_memory() {
    // SAFETY: any thread may call it at any time; it touches memory that nobody owns.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
