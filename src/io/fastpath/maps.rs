//! Memory that the programs see too: arrays of eBPF, mapped into this process.

use std::io;
use std::num::NonZero;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::index::Line;
use super::layout::{Board, Notices, Record};

/// What may lie in such memory.
///
/// # Safety
///
/// Made of atomics only, so that it may change at any time, and of the size of the map's values.
pub(in crate::io) unsafe trait Shared: Sync {}

// SAFETY: made of atomics; sizes are asserted next to the types.
unsafe impl Shared for Record {}
// SAFETY: as above.
unsafe impl Shared for Board {}
// SAFETY: as above.
unsafe impl Shared for Notices {}
// SAFETY: as above.
unsafe impl Shared for Line {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}

/// An array map as a slice.
pub(in crate::io) struct Mapped<T: Shared> {
    at: NonNull<T>,
    count: usize,
}

// SAFETY: it is a reference to memory of atomics, which any thread may use.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps an array of `count` values. The map must have been made with `BPF_F_MMAPABLE` and values of that size,
    /// which is a multiple of eight: then they lie one behind the other.
    pub(in crate::io) fn new(map: &impl AsFd, count: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = NonZero::new(size_of::<T>() * count).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it is as long as the map, or the kernel refuses.
        let at = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { at: at.cast(), count })
    }
}

impl<T: Shared> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` mapped as many values, which stay until `drop`; mappings are aligned to pages.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.count) }
    }
}

impl<T: Shared> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.at.cast(), size_of::<T>() * self.count) };
    }
}
