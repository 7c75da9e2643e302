//! The bytes of one direction: read from one leg, judged, taken by the other.
//!
//! A pipe owns no memory while it is empty. The driver lends it the worker's scratch
//! buffer for the time of a wake-up ([`Pipe::lend`], [`Pipe::reclaim`]); only what is left
//! over then moves into a buffer of the pipe's own, which is given back when it is empty.
//!
//! Knows nothing of frames but where they end.

use std::mem;

/// Below this a rest is kept in a buffer of exactly its size: mostly the beginning of a
/// header, or of a control frame. Above, in one that can take all the watermark allows.
const SMALL_REST: usize = 4 * 1024;

/// How much a pipe may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// At or above this many buffered bytes the source is not read.
    pub high: usize,
    /// At or below this many it is read again.
    pub low: usize,
}

/// Whether the bytes admitted end a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The frame goes on.
    Inside,
    /// The next byte is the first of another frame.
    Frame,
}

/// One direction's bytes.
#[derive(Debug)]
pub struct Pipe {
    storage: Vec<u8>,
    lent: bool,
    // Invariant: sent ≤ admitted ≤ judged ≤ filled ≤ storage.len(), and admitted < judged
    // only inside a judging pass, behind a discard.
    sent: usize,
    admitted: usize,
    judged: usize,
    filled: usize,
    /// The last end of a frame at or below `admitted`, as long as it is not below `sent`.
    boundary: Option<usize>,
    /// Taken by the sink but not yet by its socket (sealed TLS records).
    held: usize,
    watermarks: Watermarks,
    paused: bool,
    peak: usize,
}

impl Pipe {
    /// An empty pipe, at a boundary.
    pub const fn new(watermarks: Watermarks) -> Self {
        Self {
            storage: Vec::new(),
            lent: false,
            sent: 0,
            admitted: 0,
            judged: 0,
            filled: 0,
            boundary: Some(0),
            held: 0,
            watermarks,
            paused: false,
            peak: 0,
        }
    }

    /// Gives the pipe `scratch` to work in. It is handed straight back when the pipe has a
    /// large rest in a buffer of its own: copying that at each wake-up would cost more.
    pub fn lend(&mut self, mut scratch: Vec<u8>) -> Option<Vec<u8>> {
        let rest = self.filled - self.sent;
        if self.lent || rest >= SMALL_REST || rest > scratch.len() {
            return Some(scratch);
        }
        self.compact();
        copy(&mut scratch, self.storage.get(..rest).unwrap_or_default());
        self.storage = scratch;
        self.lent = true;
        None
    }

    /// Takes the scratch buffer back, moving what is left into a buffer of the pipe's own;
    /// frees that when nothing is left. `None`: nothing was lent.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        let rest = self.filled - self.sent;
        if !self.lent {
            if rest == 0 {
                self.storage = Vec::new();
            }
            return None;
        }
        self.lent = false;
        self.compact();
        let own = match rest {
            0 => Vec::new(),
            small if small < SMALL_REST => self.storage.get(..rest).unwrap_or_default().to_vec(),
            _ => {
                let mut own = vec![0; self.watermarks.high.max(rest)];
                copy(&mut own, self.storage.get(..rest).unwrap_or_default());
                own
            }
        };
        Some(mem::replace(&mut self.storage, own))
    }

    /// Where the source's next bytes go: at most `most`, and never beyond the high
    /// watermark. Empty: the source must not be read.
    pub fn space(&mut self, most: usize) -> &mut [u8] {
        if self.is_paused() {
            return &mut [];
        }
        let room = self.watermarks.high - self.buffered_amount().min(self.watermarks.high);
        let room = room.min(most);
        if self.storage.len() - self.filled < room {
            self.compact();
        }
        let end = self.storage.len().min(self.filled + room);
        self.storage.get_mut(self.filled..end).unwrap_or_default()
    }

    /// Whether the source is kept waiting: from the high watermark down to the low one.
    ///
    /// What is not judged does not count on the way down: the rest of a header may be all
    /// that it waits for, and with a low watermark of nothing it would wait for ever.
    pub fn is_paused(&mut self) -> bool {
        self.paused = if self.paused {
            self.admitted_amount() > self.watermarks.low
        } else {
            self.buffered_amount() >= self.watermarks.high
        };
        self.paused
    }

    /// `n` bytes of [`space`](Self::space) hold data now.
    pub fn handle_filled(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.storage.len());
        self.peak = self.peak.max(self.buffered_amount());
    }

    /// Read, but not judged.
    pub fn unjudged(&self) -> &[u8] {
        self.storage
            .get(self.judged..self.filled)
            .unwrap_or_default()
    }

    /// The same, to be looked at in another form and left as it was.
    pub fn unjudged_mut(&mut self) -> &mut [u8] {
        self.storage
            .get_mut(self.judged..self.filled)
            .unwrap_or_default()
    }

    /// Releases the next `n` unjudged bytes to the sink.
    pub fn admit(&mut self, n: usize, ends: Ends) {
        let end = (self.judged + n).min(self.filled);
        if self.admitted < self.judged {
            self.storage.copy_within(self.judged..end, self.admitted);
        }
        self.admitted += end - self.judged;
        self.judged = end;
        if ends == Ends::Frame {
            self.boundary = Some(self.admitted);
        }
    }

    /// Takes the next `n` unjudged bytes out of the stream.
    pub fn discard(&mut self, n: usize) {
        self.judged = (self.judged + n).min(self.filled);
    }

    /// Ends a judging pass: closes the gap that discards left.
    pub fn finish_judging(&mut self) {
        if self.admitted < self.judged {
            self.storage
                .copy_within(self.judged..self.filled, self.admitted);
            self.filled -= self.judged - self.admitted;
            self.judged = self.admitted;
        }
        self.reset_if_empty();
    }

    /// Puts bytes that are already judged, whole frames, behind the admitted ones and
    /// before the unjudged.
    pub fn push(&mut self, frames: &[u8]) {
        // What was held comes back to where it was taken out, which is mostly room enough.
        let end = self.admitted + frames.len();
        if end <= self.judged
            && let Some(gap) = self.storage.get_mut(self.admitted..end)
        {
            gap.copy_from_slice(frames);
            self.admitted = end;
            self.boundary = Some(end);
            return;
        }
        let mut storage = Vec::with_capacity(self.filled - self.sent + frames.len());
        storage.extend_from_slice(self.unsent());
        storage.extend_from_slice(frames);
        let admitted = storage.len();
        storage.extend_from_slice(self.unjudged());
        self.boundary = Some(admitted);
        self.replace(storage, admitted);
    }

    /// Puts bytes that are already judged before all that waits; `whole` is the last end of a
    /// frame in them, and what waits goes on where they end.
    pub fn push_front(&mut self, bytes: &[u8], whole: usize) {
        let mut storage = Vec::with_capacity(self.filled - self.sent + bytes.len());
        storage.extend_from_slice(bytes);
        storage.extend_from_slice(self.unsent());
        let admitted = storage.len();
        storage.extend_from_slice(self.unjudged());
        let boundary = self.boundary.map(|end| end - self.sent + bytes.len());
        self.boundary = Some(boundary.unwrap_or(whole));
        self.replace(storage, admitted);
    }

    /// The sink is gone, and another will take its place: forgets the next `n` bytes that it
    /// did not take, and what its socket may not have. `behind` is where the rest begins.
    pub fn restart(&mut self, n: usize, behind: Ends) {
        self.sent = (self.sent + n).min(self.admitted);
        self.held = 0;
        if self.boundary.is_none_or(|end| end < self.sent) {
            self.boundary = match behind {
                Ends::Frame => Some(self.sent),
                Ends::Inside => None,
            };
        }
        self.reset_if_empty();
    }

    /// Holds more or less from here on. What is there stays.
    pub fn set_watermarks(&mut self, watermarks: Watermarks) {
        self.watermarks = watermarks;
        // A large rest stays where it is, so there must be room to read more behind it.
        if !self.lent && self.filled - self.sent >= SMALL_REST {
            let len = watermarks.high.max(self.storage.len());
            self.storage.resize(len, 0);
        }
    }

    fn replace(&mut self, mut storage: Vec<u8>, admitted: usize) {
        self.filled = storage.len();
        self.sent = 0;
        self.admitted = admitted;
        self.judged = admitted;
        if self.lent {
            // The scratch goes back to the worker, so it is kept and grown if need be.
            let len = self.storage.len().max(storage.len());
            self.storage.resize(len, 0);
            copy(&mut self.storage, &storage);
        } else {
            // A large rest stays here, so there must be room to read more behind it.
            if storage.len() >= SMALL_REST {
                storage.resize(self.watermarks.high.max(storage.len()), 0);
            }
            self.storage = storage;
        }
        self.peak = self.peak.max(self.buffered_amount());
    }

    /// Admitted, not yet taken by the sink.
    pub fn unsent(&self) -> &[u8] {
        self.storage
            .get(self.sent..self.admitted)
            .unwrap_or_default()
    }

    /// The part of [`unsent`](Self::unsent) up to the last end of a frame: all of it, when
    /// the sink already has the beginning of the frame that goes on.
    pub fn unsent_to_boundary(&self) -> &[u8] {
        let end = self.boundary.unwrap_or(self.admitted);
        self.storage.get(self.sent..end).unwrap_or_default()
    }

    /// Whether the sink has whole frames only, and no more whole ones wait.
    pub fn is_sent_to_boundary(&self) -> bool {
        self.boundary == Some(self.sent)
    }

    /// Whether whole frames only are admitted.
    pub fn is_whole(&self) -> bool {
        self.boundary == Some(self.admitted)
    }

    /// The sink took `n` bytes of [`unsent`](Self::unsent); they count as buffered until
    /// [`handle_flushed`](Self::handle_flushed).
    pub fn handle_sent(&mut self, n: usize) {
        let sent = (self.sent + n).min(self.admitted);
        self.held += sent - self.sent;
        self.sent = sent;
        if self.boundary.is_some_and(|boundary| boundary < self.sent) {
            self.boundary = None;
        }
        self.reset_if_empty();
    }

    /// The sink's socket has everything that the sink took.
    pub const fn handle_flushed(&mut self) {
        self.held = 0;
    }

    /// Whether the sink has a part of the frame under way, but not all that is admitted of
    /// it and not its end.
    pub const fn is_begun(&self) -> bool {
        self.boundary.is_none()
    }

    /// Takes the frame under way out again, unless the sink has a part of it. What is not
    /// judged stays.
    pub fn cut_to_boundary(&mut self) {
        if let Some(boundary) = self.boundary {
            self.admitted = boundary;
            self.finish_judging();
        }
    }

    /// Forgets what was read but not judged.
    pub fn discard_unjudged(&mut self) {
        self.judged = self.admitted;
        self.filled = self.admitted;
        self.reset_if_empty();
    }

    /// Forgets what the sink will never take, because it is gone.
    pub fn discard_unsent(&mut self) {
        self.sent = self.admitted;
        self.boundary = Some(self.sent);
        self.held = 0;
        self.reset_if_empty();
    }

    /// Bytes in user space between the two sockets: read and not yet taken by the other.
    pub const fn buffered_amount(&self) -> usize {
        self.filled - self.sent + self.held
    }

    /// The part of [`buffered_amount`](Self::buffered_amount) that is judged: what the sink
    /// has to take, or its socket.
    pub const fn admitted_amount(&self) -> usize {
        self.admitted - self.sent + self.held
    }

    /// The part of it that the sink took and its socket has not.
    pub const fn unflushed(&self) -> usize {
        self.held
    }

    /// The largest buffered amount so far.
    pub const fn peak(&self) -> usize {
        self.peak
    }

    /// Memory of the pipe's own, in bytes.
    pub fn owned(&self) -> usize {
        if self.lent {
            0
        } else {
            self.storage.capacity()
        }
    }

    fn compact(&mut self) {
        if self.sent == 0 {
            return;
        }
        let shift = self.sent;
        self.storage.copy_within(shift..self.filled, 0);
        self.sent = 0;
        self.admitted -= shift;
        self.judged -= shift;
        self.filled -= shift;
        self.boundary = self.boundary.map(|boundary| boundary - shift);
    }

    const fn reset_if_empty(&mut self) {
        if self.sent == self.filled {
            if self.boundary.is_some() {
                self.boundary = Some(0);
            }
            self.sent = 0;
            self.admitted = 0;
            self.judged = 0;
            self.filled = 0;
        }
    }
}

/// Copies `bytes` to the front of `to`, which is at least as long.
fn copy(to: &mut [u8], bytes: &[u8]) {
    if let Some(front) = to.get_mut(..bytes.len()) {
        front.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
