//! Sockets to accept on, how many connections there may be at once and how fast they may
//! come, and what a balancer says of one before its first byte.
//!
//! Owns the listening sockets, the counts of the process and the pause after a failed accept.
//! It knows neither TLS nor HTTP: what it gives out is a TCP connection whose options are set.
//! The only locks that workers share are in [`Permits`], and are taken once per connection.

mod arrivals;
mod backoff;
mod permits;
mod proxy_header;
mod stock;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use backoff::Backoff;
pub use permits::{Full, Permit, Permits, Refusing};
pub use proxy_header::{NoProxyHeader, read_proxy_header};
pub use stock::{Named, Sockets, Stock};

/// Connections the kernel completes while nobody accepts. Enough for a burst of reconnects
/// after a restart; the kernel lowers it to `net.core.somaxconn` (4096 by default).
pub const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {remedy}")]
pub struct BindError {
    /// The address as configured.
    pub addr: SocketAddr,
    /// What an operator can do about it.
    remedy: String,
    /// What the system said.
    #[source]
    source: io::Error,
}

/// Opens one listening socket per worker on the same address, so that each worker accepts
/// for itself and the kernel spreads the connections (`SO_REUSEPORT`).
///
/// Port 0 asks for a free port; all sockets then have the same. `[::]` means IPv6 alone
/// (`IPV6_V6ONLY`), so that `0.0.0.0` and `[::]` can both be listened on, and no address
/// appears in two spellings; configure two listeners for both families.
///
/// The address must be free of everybody else, even of another process of the same user
/// that shares its port as well: the first socket is bound without `SO_REUSEPORT`, which is
/// only then set on it for the others to join. There is no moment between a check and a use.
/// Once we listen, a process of the same user that sets `SO_REUSEPORT` can still join us;
/// that is the system's rule, and no socket can forbid it.
///
/// `workers` of 0 is read as 1.
///
/// # Errors
/// A [`BindError`] inside an [`io::Error`] of the same kind.
pub fn bind(addr: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    bind_all(addr, workers).map_err(|source| bind_error(addr, source))
}

fn bind_error(addr: SocketAddr, source: io::Error) -> io::Error {
    let kind = source.kind();
    let remedy = remedy(kind, addr.port());
    io::Error::new(
        kind,
        BindError {
            addr,
            remedy,
            source,
        },
    )
}

fn bind_all(addr: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let first = socket(addr)?;
    first.bind(&addr.into())?;
    first.set_reuse_port(true)?;
    // With port 0 this is where the port is known.
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        let next = socket(addr)?;
        next.set_reuse_port(true)?;
        next.bind(&bound)?;
        sockets.push(next);
    }
    // Listening begins once all are bound: if one fails, no client was ever answered.
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(StdListener::from).collect())
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait until the connections of the last run have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn remedy(kind: io::ErrorKind, port: u16) -> String {
    match kind {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there; `ss -ltnp 'sport = :{port}'` names it. Stop it, \
             or choose another port"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} needs the capability CAP_NET_BIND_SERVICE; grant it, or choose a port \
             of 1024 or more"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address; `ip address` lists them".to_owned()
        }
        _ => "the system refused".to_owned(),
    }
}

/// One worker's listening sockets of one address.
#[derive(Debug)]
pub struct Listener {
    /// The one that is asked first is another after each connection.
    tcp: VecDeque<TcpListener>,
    notsent_lowat: u32,
    backoff: Backoff,
    /// Nothing is accepted before this moment.
    paused_until: Option<Instant>,
}

/// A connection as it comes from the kernel.
#[derive(Debug)]
pub struct Accepted {
    /// With `TCP_NODELAY` and `TCP_NOTSENT_LOWAT` set.
    pub tcp: TcpStream,
    /// The client's address. One of the family of the listener.
    pub peer: SocketAddr,
}

impl Listener {
    /// Takes a socket made by [`bind`], or several, into the runtime of the current worker.
    ///
    /// `notsent_lowat`: bytes that the kernel may hold towards a client before they are on
    /// the wire. What is beyond waits where the backpressure policy counts it.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO enabled.
    pub fn new(sockets: impl Into<Sockets>, notsent_lowat: u32) -> io::Result<Self> {
        let Sockets(sockets) = sockets.into();
        let tcp = sockets.into_iter().map(TcpListener::from_std);
        Ok(Self {
            tcp: tcp.collect::<io::Result<_>>()?,
            notsent_lowat,
            backoff: Backoff::new(),
            paused_until: None,
        })
    }

    /// Another `notsent_lowat`, for the connections that come from now on.
    pub fn set_notsent_lowat(&mut self, notsent_lowat: u32) {
        self.notsent_lowat = notsent_lowat;
    }

    /// The address listened on, with the port that the kernel chose for port 0.
    ///
    /// # Errors
    /// Those of `getsockname`, which has none for a bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let first = self.tcp.front().ok_or(io::ErrorKind::AddrNotAvailable)?;
        first.local_addr()
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Count it and call again: no error ends a listener. After one that says that the
    /// process or the system has run out of something (EMFILE, ENFILE, ENOBUFS, ENOMEM) the
    /// next call waits first, longer each time up to a second, since the connection is still
    /// in the queue and an immediate retry would spin.
    pub async fn accept(&mut self) -> io::Result<Accepted> {
        if let Some(moment) = self.paused_until {
            sleep_until(moment).await;
            self.paused_until = None;
        }
        let (tcp, peer) = match self.accept_at_any().await {
            Ok(accepted) => accepted,
            Err(error) => return Err(self.failed(error)),
        };
        self.backoff.succeeded();
        self.prepare(tcp, peer)
    }

    /// Those whom the kernel has let in already, for who shuts: they would hear a reset. At once,
    /// also after a failed accept, and also where the runtime has not noticed them yet. At most
    /// [`BACKLOG`] for each socket.
    pub fn accept_waiting(&mut self) -> Vec<io::Result<Accepted>> {
        let mut all = Vec::new();
        for listening in &self.tcp {
            for _ in 0..BACKLOG {
                match accept_at(listening) {
                    Ok((tcp, peer)) => all.push(self.prepare(tcp, peer)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        let goes_on = is_about_one_connection(&error);
                        all.push(Err(error));
                        if !goes_on {
                            break;
                        }
                    }
                }
            }
        }
        all
    }

    fn prepare(&self, tcp: TcpStream, peer: SocketAddr) -> io::Result<Accepted> {
        // A frame is written whole: there is nothing to gain from waiting for more.
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_notsent_lowat(self.notsent_lowat)?;
        Ok(Accepted { tcp, peer })
    }

    async fn accept_at_any(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = poll_fn(|cx| {
            for tcp in &self.tcp {
                if let Poll::Ready(accepted) = tcp.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await;
        if self.tcp.len() > 1 {
            self.tcp.rotate_left(1);
        }
        accepted
    }

    fn failed(&mut self, error: io::Error) -> io::Error {
        if !is_about_one_connection(&error) {
            self.paused_until = Some(Instant::now() + self.backoff.failed());
        }
        error
    }
}

/// accept(2) itself.
fn accept_at(listening: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listening).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// Whether the failure took the connection with it, so that the next one can be accepted at
/// once (accept(2), "Error handling"). Unknown errors are not: a pause is the safe side.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut
    )
}

/// Shortest and longest pause after a failed accept. Descriptors come back as sessions end,
/// within milliseconds on a busy edge; a second of deafness is the most a client should see.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

#[cfg(test)]
mod tests;
