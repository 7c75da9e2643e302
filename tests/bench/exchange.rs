//! Echoes over one connection: many messages under way, each compared with what was sent.
//!
//! Owns the exchange of one run: what is written next, what is still awaited, and how long each
//! message took. It knows nothing of other connections.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::Client;
use crate::frames::{self, TEXT};

/// What is sent again and again: frames that were masked once.
pub struct Batch {
    /// `in_flight` equal frames, one after another.
    frames: Vec<u8>,
    /// Bytes of one of them.
    frame: usize,
    in_flight: usize,
    payload: Vec<u8>,
}

impl Batch {
    /// Text messages of `size` bytes, `in_flight` of them at a time.
    pub fn new(size: usize, in_flight: usize) -> Self {
        Self::of(frames::text(size), in_flight)
    }

    /// Messages that say `payload`, `in_flight` of them at a time.
    pub fn of(payload: Vec<u8>, in_flight: usize) -> Self {
        let frame = frames::masked(TEXT, &payload);
        Self {
            frames: frame.repeat(in_flight),
            frame: frame.len(),
            in_flight,
            payload,
        }
    }

    /// One frame.
    pub fn frame(&self) -> &[u8] {
        &self.frames[..self.frame]
    }

    /// What one frame says, unmasked.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A time as it is kept, one for each message: 4 s at most.
pub fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

/// One run of echoes over one connection.
pub struct Exchange<'a> {
    batch: &'a Batch,
    until: Instant,
    /// When each message that is under way was handed to TLS, oldest first.
    sent: VecDeque<Instant>,
    /// Bytes of frames that were promised but not written.
    unwritten: usize,
    /// Where in `batch.frames` the next byte is taken from.
    position: usize,
    is_flushed: bool,
    round_trips: Vec<u32>,
}

impl<'a> Exchange<'a> {
    /// The first messages are due at once.
    pub fn new(batch: &'a Batch, until: Instant) -> Self {
        Self {
            batch,
            until,
            sent: std::iter::repeat_n(Instant::now(), batch.in_flight).collect(),
            unwritten: batch.frames.len(),
            position: 0,
            is_flushed: true,
            round_trips: Vec::new(),
        }
    }

    /// One time in nanoseconds for each message, in the order they came back.
    pub fn into_round_trips(self) -> Vec<u32> {
        self.round_trips
    }

    /// Writes what is due and reads what has come, so that neither waits for the other.
    pub fn poll(
        &mut self,
        client: &mut Client,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.poll_write(client, cx)?;
            if self.sent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut client.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            client
                .incoming
                .feed(read.filled(), Some(&self.batch.payload))?;
            self.count(std::mem::take(&mut client.incoming.messages))?;
        }
    }

    fn poll_write(&mut self, client: &mut Client, cx: &mut Context<'_>) -> io::Result<()> {
        let mut stream = Pin::new(&mut client.stream);
        while self.unwritten > 0 || !client.incoming.pongs.is_empty() {
            let pongs = &mut client.incoming.pongs;
            let is_pong = !pongs.is_empty() && self.position.is_multiple_of(self.batch.frame);
            let due = if is_pong {
                &pongs[..]
            } else {
                self.due(!pongs.is_empty())
            };
            let Poll::Ready(written) = stream.as_mut().poll_write(cx, due)? else {
                return Ok(());
            };
            self.is_flushed = false;
            if is_pong {
                pongs.drain(..written);
            } else {
                self.unwritten -= written;
                self.position = (self.position + written) % self.batch.frames.len();
            }
        }
        if !self.is_flushed {
            self.is_flushed = stream.poll_flush(cx)?.is_ready();
        }
        Ok(())
    }

    /// The next bytes to write; only the rest of the current frame when a pong waits behind it.
    fn due(&self, stop_at_boundary: bool) -> &'a [u8] {
        let frame = self.batch.frame;
        let end = match stop_at_boundary {
            true => (self.position / frame + 1) * frame,
            false => self.batch.frames.len(),
        };
        let end = end.min(self.position + self.unwritten);
        &self.batch.frames[self.position..end]
    }

    /// Books echoes that came in, and promises one more message for each until time is up.
    fn count(&mut self, echoes: usize) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..echoes {
            let sent = self.sent.pop_front();
            let sent = sent.ok_or_else(|| io::Error::other("an echo of nothing"))?;
            self.round_trips.push(nanoseconds(now - sent));
            if now < self.until {
                self.sent.push_back(now);
                self.unwritten += self.batch.frame;
            }
        }
        Ok(())
    }
}
