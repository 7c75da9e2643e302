//! Bytes that could not be passed on yet: taken from the front, freed when empty.
//!
//! Knows nothing of TLS. Its bound is its owner's: it never takes more than it is given.

/// A queue of bytes that owns no memory when it is empty.
///
/// Invariant: `start < bytes.len()`, or both are 0 and `bytes` has no allocation.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    start: usize,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Adds to the end. The allocation is exact, since most often it happens once.
    pub(super) fn push(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        self.bytes.reserve_exact(more.len());
        self.bytes.extend_from_slice(more);
    }

    /// Removes `n` bytes from the front; more than there are empties it.
    pub(super) fn advance(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut kept = Kept::default();
        kept.push(b"abc");
        kept.advance(1);
        kept.push(b"de");
        assert_eq!(kept.as_slice(), b"bcde");
        assert_eq!(kept.len(), 4);
    }

    #[test]
    fn an_emptied_queue_owns_no_memory() {
        let mut kept = Kept::default();
        kept.push(b"abc");
        kept.advance(3);
        assert!(kept.is_empty());
        assert_eq!(kept.bytes.capacity(), 0);
        kept.push(b"");
        assert_eq!(kept.bytes.capacity(), 0);
    }

    #[test]
    fn one_push_allocates_exactly_what_it_holds() {
        let mut kept = Kept::default();
        kept.push(&[7; 1000]);
        assert_eq!(kept.bytes.capacity(), 1000);
    }
}
