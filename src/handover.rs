//! From one process to the next: the listening sockets go over, and then the older one drains.
//!
//! The older process starts the newer one with one end of a socket pair as its standard input
//! (and `--take-over` among its arguments), and sends it every listening socket with the
//! address that the configuration gives it. The newer one answers once: that it serves, or why
//! it cannot. Both have the sockets then, so no queue of the kernel is lost at any moment. This
//! module knows nothing of what listens or drains.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::sync::oneshot;

/// The process that is to take over. Killed when dropped, unless it was [let
/// go](Self::let_go).
#[derive(Debug)]
pub struct Successor {
    /// `None`: it is let go.
    child: Option<Child>,
    answer: Option<oneshot::Receiver<io::Result<Answer>>>,
}

#[derive(Debug)]
enum Answer {
    Serving,
    Failed(String),
}

/// Why the sockets were not taken over.
#[derive(Debug)]
pub enum NotServing {
    /// It said why.
    Failed(String),
    /// It ended without a word.
    Ended(ExitStatus),
    /// It did not answer in time.
    Late,
    /// The system refused something.
    Io(io::Error),
}

impl fmt::Display for NotServing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Ended(status) => write!(f, "the new process ended without a word: {status}"),
            Self::Late => write!(f, "the new process did not serve within {PATIENCE:?}"),
            Self::Io(error) => write!(f, "the new process cannot be talked to: {error}"),
        }
    }
}

impl Successor {
    /// Starts `command`, and sends it the sockets.
    ///
    /// # Errors
    /// It cannot be started, or not be sent them.
    pub fn start(mut command: Command, sockets: &[(SocketAddr, OwnedFd)]) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // One that does not read must not hold this process up.
        set_socket_timeout(&ours, Timeout::Send, Some(SEND_PATIENCE))?;
        set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
        let child = command.stdin(Stdio::from(theirs)).spawn()?;
        // The end of theirs that this process has is closed with the command: whatever ends the
        // child ends the conversation.
        drop(command);
        let (tell, answer) = oneshot::channel();
        let successor = Self {
            child: Some(child),
            answer: Some(answer),
        };
        match send_sockets(&ours, sockets) {
            // It has ended, or given up: its answer or its status says why.
            Err(error) if is_broken_off(&error) => {}
            sent => sent?,
        }
        thread::Builder::new()
            .name("handover".to_owned())
            .spawn(move || {
                // Whoever does not wait any more has no use for it.
                let _ = tell.send(receive_answer(&ours));
            })?;
        Ok(successor)
    }

    /// The process's number.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Resolves when it serves, or when it is known that it will not; then it has ended.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn serves(&mut self) -> Result<(), NotServing> {
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        let answer = answer
            .await
            .unwrap_or(Err(io::ErrorKind::BrokenPipe.into()));
        self.answer = None;
        match answer {
            Ok(Answer::Serving) => Ok(()),
            Ok(Answer::Failed(why)) => {
                self.end();
                Err(NotServing::Failed(why))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.end();
                Err(NotServing::Late)
            }
            Err(error) => Err(match self.end() {
                Some(status) => NotServing::Ended(status),
                None => NotServing::Io(error),
            }),
        }
    }

    /// It goes on when this process has ended.
    pub fn let_go(mut self) {
        self.child = None;
    }

    /// It has ended, or is ended here.
    fn end(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        // One that closed its end is ending by itself, and its status says how; one that is
        // late, or that said it failed, may be helped.
        if child.try_wait().ok().flatten().is_none() {
            for _ in 0..LOOKS {
                thread::sleep(LOOK_EVERY);
                if let Ok(Some(status)) = child.try_wait() {
                    return Some(status);
                }
            }
            // It may have ended by now.
            let _ = child.kill();
        }
        child.wait().ok()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process whose place this one takes.
#[derive(Debug)]
pub struct Predecessor(OwnedFd);

impl Predecessor {
    /// Takes the sockets over from whoever started this process.
    ///
    /// # Errors
    /// The standard input is no such conversation.
    pub fn meet() -> io::Result<(Self, Vec<(SocketAddr, TcpListener)>)> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        set_socket_timeout(&socket, Timeout::Recv, Some(SEND_PATIENCE))?;
        let sockets = receive_sockets(&socket)?;
        Ok((Self(socket), sockets))
    }

    /// This process serves: the other one may drain.
    ///
    /// # Errors
    /// The other one is gone.
    pub fn serving(self) -> io::Result<()> {
        send(&self.0, SERVING)
    }

    /// This process cannot serve, for `why`.
    pub fn failed(self, why: &str) {
        let why = why.get(..why.floor_char_boundary(MAX_TEXT)).unwrap_or(why);
        // The end of this process says as much.
        let _ = send(&self.0, [FAILED, why.as_bytes()].concat().as_slice());
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_answer(socket: &OwnedFd) -> io::Result<Answer> {
    let mut text = vec![0; FAILED.len() + MAX_TEXT];
    let (_, received) = rustix::net::recv(socket, text.as_mut_slice(), RecvFlags::empty())?;
    text.truncate(received);
    match text.strip_prefix(FAILED) {
        Some(why) => Ok(Answer::Failed(String::from_utf8_lossy(why).into_owned())),
        None if text == SERVING => Ok(Answer::Serving),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A message for each few sockets: their addresses as text, and the descriptors beside it; an
/// empty list at the end.
fn send_sockets(to: &OwnedFd, sockets: &[(SocketAddr, OwnedFd)]) -> io::Result<()> {
    for part in sockets.chunks(PART) {
        let names: Vec<_> = part.iter().map(|(bind, _)| bind.to_string()).collect();
        let fds: Vec<BorrowedFd<'_>> = part.iter().map(|(_, fd)| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PART))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let names = names.join("\n");
        let text = [IoSlice::new(names.as_bytes())];
        sendmsg(to, &text, &mut control, SendFlags::NOSIGNAL)?;
    }
    send(to, END)
}

fn receive_sockets(from: &OwnedFd) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut sockets = Vec::new();
    loop {
        let mut text = vec![0; PART * LONGEST_NAME];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PART))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        text.truncate(received.bytes);
        if text == END {
            return Ok(sockets);
        }
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds: Vec<OwnedFd> = fds.collect();
        let names = str::from_utf8(&text).map_err(|_| broken())?;
        let names: Vec<SocketAddr> = names
            .lines()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| broken())?;
        if names.is_empty() || names.len() != fds.len() {
            return Err(broken());
        }
        sockets.extend(
            names
                .into_iter()
                .zip(fds.into_iter().map(TcpListener::from)),
        );
    }
}

fn is_broken_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the process before this one broke off, or speaks otherwise",
    )
}

const SERVING: &[u8] = b"serving";
const FAILED: &[u8] = b"failed\n";
const END: &[u8] = b"end";

/// Sockets in one message; the system takes 253.
const PART: usize = 64;

/// Bytes of an address and its line end: an IPv6 one with a scope has 58.
const LONGEST_NAME: usize = 64;

/// Bytes of what a process says that cannot serve.
const MAX_TEXT: usize = 16 * 1024;

/// For the newer process to load its configuration and to bind what is new.
const PATIENCE: Duration = Duration::from_secs(60);

/// For a message to be taken, or to come.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// How often, and how many times, the end of a process is looked for that has said that it ends.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 100;

#[cfg(test)]
mod tests;
