//! Reads what the edge sends to one peer, as that peer would, and panics at what no peer
//! may ever see (RFC 6455 §5).

use tidegate::proto::frame::{Fin, Header, MAX_HEADER_LEN, OpCode};
use tidegate::proto::side::Side;

/// One frame as the peer got it: header and payload, byte for byte.
pub type Whole = (OpCode, Vec<u8>);

/// The peer's view of its byte stream.
#[derive(Debug)]
pub struct Checker {
    from: Side,
    /// The frame under way.
    frame: Vec<u8>,
    header: Option<(Header, usize)>,
    message_open: bool,
    closed: bool,
    kept: Vec<Whole>,
}

impl Checker {
    /// For the stream that the edge sends to `to`.
    pub fn new(to: Side) -> Self {
        Self {
            from: to.other(),
            frame: Vec::new(),
            header: None,
            message_open: false,
            closed: false,
            kept: Vec::new(),
        }
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            assert!(!self.closed, "something follows the Close");
            let n = self.missing().min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            self.frame.extend_from_slice(now);
            bytes = rest;
            if self.header.is_none() {
                // The edge wrote or judged it, so there is nothing to refuse.
                self.header = Header::decode(&self.frame, self.from).expect("a legal header");
                assert!(self.header.is_some() || self.frame.len() < MAX_HEADER_LEN);
                if let Some((header, _)) = self.header {
                    self.check_order(&header);
                }
            }
            if self.missing() == 0 {
                self.end_frame();
            }
        }
    }

    /// The whole frames so far.
    pub fn whole(&self) -> &[Whole] {
        &self.kept
    }

    /// Whether a whole Close has come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes until there is something to decide: the header's next byte, or the frame's end.
    fn missing(&self) -> usize {
        match self.header {
            None => 1,
            Some((header, at)) => {
                let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                at.saturating_add(len) - self.frame.len()
            }
        }
    }

    fn check_order(&mut self, header: &Header) {
        if header.opcode.is_control() {
            return;
        }
        let continues = header.opcode == OpCode::Continuation;
        assert_eq!(continues, self.message_open, "fragments out of order");
        self.message_open = header.fin == Fin::More;
    }

    fn end_frame(&mut self) {
        let Some((header, _)) = self.header.take() else {
            return;
        };
        self.closed = header.opcode == OpCode::Close;
        self.kept
            .push((header.opcode, std::mem::take(&mut self.frame)));
    }
}
