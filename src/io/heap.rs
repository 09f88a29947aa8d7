//! How this process gets its memory.

/// Blocks from this size on are mapped each by itself.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 64 << 10;

/// Has large blocks, which are tables and buffers made at start, come from the kernel directly: as zeroes that cost
/// nothing until they are touched. Otherwise glibc cuts them from a heap that it has to clear, and 1,024 packet buffers
/// that nobody needs yet take 50 MB and some 20 ms of a start. Elsewhere than with glibc it does nothing.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator under its own lock.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
}
