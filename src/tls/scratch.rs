//! The two buffers every TLS connection of a thread borrows for the time of one call.
//!
//! Knows nothing of TLS. Nothing survives in them between two calls.

use std::cell::RefCell;

/// Most ciphertext taken from a socket by one `recv`, plus an unfinished record before it.
///
/// Large, since a relay that is behind catches up with fewer system calls; the memory is one
/// per thread, and only the pages that were used are resident.
pub(super) const READ_SIZE: usize = 128 * 1024;

/// Most plaintext sealed by one write: four records of the largest size.
pub(super) const SEAL_SIZE: usize = 64 * 1024;

/// Room for the sealed form of [`SEAL_SIZE`] bytes: four records cost 5 bytes of header and
/// at most 24 of nonce and tag each; the rest is for a ticket, an answer to a KeyUpdate or an
/// alert that leaves with them.
const WRITE_SIZE: usize = SEAL_SIZE + 4096;

/// The second buffer begins this far off a page boundary, the first on one.
///
/// Copies between buffers whose addresses differ by 1 to 63 modulo 4096 run at a tenth of
/// the speed on some processors (glibc bug 30994), and two large allocations made one after
/// the other differ by 16.
const OFFSET: usize = 1024;

const PAGE: usize = 4096;

/// One thread's buffers.
pub(super) struct Scratch {
    slab: Vec<u8>,
    start: usize,
}

impl Scratch {
    fn new() -> Self {
        // Zeroed pages come from the kernel untouched: they cost no memory until used.
        let slab = vec![0; PAGE + READ_SIZE + OFFSET + WRITE_SIZE];
        let start = slab.as_ptr().align_offset(PAGE).min(PAGE);
        Self { slab, start }
    }

    /// [`READ_SIZE`] bytes.
    fn read(&mut self) -> &mut [u8] {
        let end = self.start + READ_SIZE;
        self.slab.get_mut(self.start..end).unwrap_or_default()
    }

    /// Room for [`SEAL_SIZE`] bytes, sealed.
    fn write(&mut self) -> &mut [u8] {
        let start = self.start + READ_SIZE + OFFSET;
        let end = start + WRITE_SIZE;
        self.slab.get_mut(start..end).unwrap_or_default()
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Lends the thread's buffer for receiving. Must not be nested: `f` polls a socket or calls
/// rustls, neither of which comes back here.
pub(super) fn with_read<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| f(scratch.read()))
}

/// Lends the thread's buffer for sending, under the same rule.
pub(super) fn with_write<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| f(scratch.write()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffers_lie_apart_from_each_other_modulo_a_page() {
        let read = with_read(|buf| buf.as_ptr() as usize);
        let write = with_write(|buf| buf.as_ptr() as usize);
        let apart = write.wrapping_sub(read) % PAGE;
        assert!((64..PAGE - 64).contains(&apart), "{apart}");
        assert_eq!(read % PAGE, 0);
    }

    #[test]
    fn the_buffers_have_their_sizes() {
        assert_eq!(with_read(|buf| buf.len()), READ_SIZE);
        assert_eq!(with_write(|buf| buf.len()), WRITE_SIZE);
    }
}
