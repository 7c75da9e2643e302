//! The listening sockets of the process: where each came from, and who else may need it.
//!
//! A process binds its sockets, or inherits them: from a service manager that listened before
//! it (`LISTEN_FDS`), or from the process whose place it takes. It keeps a second descriptor of
//! each, so that it can hand them over in turn. A socket is never thrown away while somebody
//! may wait in its queue: with fewer workers one accepts at several, with more they share one
//! or bind others to the same port.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use socket2::{SockRef, Socket};

use crate::listener::{BACKLOG, bind, bind_error, socket};

/// One worker's part of the sockets of one address: at least one.
#[derive(Debug)]
pub struct Sockets(pub(super) Vec<StdListener>);

impl From<StdListener> for Sockets {
    fn from(socket: StdListener) -> Self {
        Self(vec![socket])
    }
}

impl Sockets {
    /// The address listened on, with a real port.
    ///
    /// # Errors
    /// Those of `getsockname`, which has none for a bound socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let first = self.0.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        first.local_addr()
    }

    /// The only one there is, for who accepts at one alone.
    pub fn into_one(self) -> Option<StdListener> {
        self.0.into_iter().next()
    }
}

/// See the module's documentation. Cheap to clone; clones are the same stock.
#[derive(Clone, Debug, Default)]
pub struct Stock(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Nobody has asked for these yet.
    inherited: Vec<Named>,
    /// A second descriptor of each in use.
    kept: Vec<Named>,
    /// None is to be kept any more.
    closed: bool,
}

/// A socket under the address that the configuration gives it, which may have port 0.
#[derive(Debug)]
pub struct Named {
    /// As configured.
    pub bind: SocketAddr,
    /// The socket.
    pub socket: StdListener,
}

/// What a service manager passed, and is no good.
#[derive(Debug, thiserror::Error)]
#[error("LISTEN_FDS: descriptor {fd}: {what}")]
struct Unusable {
    fd: usize,
    what: String,
}

impl Stock {
    /// With sockets of the process whose place this one takes.
    ///
    /// # Errors
    /// A socket that is no listening one, which only a fault of ours can be.
    pub fn inherit(sockets: Vec<Named>) -> io::Result<Self> {
        for named in &sockets {
            check(&named.socket).map_err(io::Error::other)?;
        }
        Ok(Self::of(sockets))
    }

    /// With what a service manager passed, if one did (`LISTEN_FDS`, `LISTEN_PID`). Their names
    /// mean nothing here: a socket is the listener's whose address it has. To be called before
    /// there are threads, since it takes the variables out of the environment.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket.
    pub fn activated() -> io::Result<Self> {
        if env::var_os("LISTEN_FDS").is_none() {
            return Ok(Self::default());
        }
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let unusable = |what: String| {
                let fd = index + 3;
                io::Error::new(io::ErrorKind::InvalidInput, Unusable { fd, what })
            };
            let taken = passed.take_tcp_listener(index);
            let Some(socket) = taken.map_err(|error| unusable(error.to_string()))? else {
                continue;
            };
            check(&socket).map_err(|what| unusable(what.to_owned()))?;
            let bind = socket.local_addr()?;
            sockets.push(Named { bind, socket });
        }
        Ok(Self::of(sockets))
    }

    fn of(inherited: Vec<Named>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            inherited,
            ..Inner::default()
        })))
    }

    /// The sockets of `addr`, dealt to so many workers: inherited ones where there are any, else
    /// see [`bind`].
    ///
    /// # Errors
    /// Those of [`bind`].
    pub fn bind(&self, addr: SocketAddr, workers: usize) -> io::Result<Vec<Sockets>> {
        let mut sockets = self.lock().take(addr);
        if sockets.is_empty() {
            sockets = bind(addr, workers)?;
        } else {
            join(&mut sockets, workers).map_err(|error| bind_error(addr, error))?;
        }
        let mut inner = self.lock();
        if !inner.closed {
            for socket in &sockets {
                let socket = socket.try_clone()?;
                inner.kept.push(Named { bind: addr, socket });
            }
        }
        deal(sockets, workers)
    }

    /// The inherited addresses that are none of `binds`.
    pub fn foreign(&self, binds: &[SocketAddr]) -> Vec<SocketAddr> {
        let inner = self.lock();
        let inherited = inner.inherited.iter().map(|named| named.bind);
        inherited.filter(|bind| !binds.contains(bind)).collect()
    }

    /// The addresses that were inherited and that nobody asked for. Their sockets are closed.
    pub fn forget_inherited(&self) -> Vec<SocketAddr> {
        let unclaimed = std::mem::take(&mut self.lock().inherited);
        let mut addresses: Vec<_> = unclaimed.into_iter().map(|named| named.bind).collect();
        addresses.dedup();
        addresses
    }

    /// Keeps the sockets of these addresses, as configured, and no others.
    pub fn keep(&self, binds: &[SocketAddr]) {
        let mut inner = self.lock();
        let (mut wanted, mut kept) = (binds.to_vec(), Vec::<(SocketAddr, SocketAddr)>::new());
        // Several listeners may be bound to port 0: each of them is one real address.
        inner.kept.retain(|named| {
            let Ok(real) = named.socket.local_addr() else {
                return false;
            };
            if kept.contains(&(named.bind, real)) {
                return true;
            }
            let Some(at) = wanted.iter().position(|bind| *bind == named.bind) else {
                return false;
            };
            wanted.swap_remove(at);
            kept.push((named.bind, real));
            true
        });
    }

    /// Keeps none from now on: a socket is closed when the workers have closed it.
    pub fn let_go(&self) {
        let mut inner = self.lock();
        inner.kept.clear();
        inner.closed = true;
    }

    /// Another descriptor of each socket in use, for the process that takes this one's place.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn lend(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let inner = self.lock();
        let kept = inner.kept.iter();
        kept.map(|named| Ok((named.bind, named.socket.try_clone()?.into())))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step, so what a panic leaves is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What was inherited for `addr`: of several with port 0, those of one port.
    fn take(&mut self, addr: SocketAddr) -> Vec<StdListener> {
        let port = |named: &Named| named.socket.local_addr().ok();
        let first = self.inherited.iter().find(|named| named.bind == addr);
        let Some(real) = first.and_then(port) else {
            return Vec::new();
        };
        let inherited = std::mem::take(&mut self.inherited);
        let (taken, left) = inherited
            .into_iter()
            .partition(|named| named.bind == addr && port(named) == Some(real));
        self.inherited = left;
        let taken: Vec<Named> = taken;
        taken.into_iter().map(|named| named.socket).collect()
    }
}

/// What a socket must be to be accepted at, and the options that it needs.
fn check(socket: &StdListener) -> Result<(), &'static str> {
    let options = SockRef::from(socket);
    if !options.is_listener().unwrap_or(false) {
        return Err("it is no listening socket");
    }
    let addr = socket.local_addr().map_err(|_| "it has no address")?;
    if addr.is_ipv6() && !options.only_v6().unwrap_or(false) {
        return Err("it takes IPv4, too: set BindIPv6Only=ipv6-only in the socket unit");
    }
    options
        .set_nonblocking(true)
        .map_err(|_| "it cannot be made non-blocking")
}

/// Binds more sockets to the port of these, if they share it (`SO_REUSEPORT`), until each
/// worker has one.
fn join(sockets: &mut Vec<StdListener>, workers: usize) -> io::Result<()> {
    for socket in sockets.iter() {
        if !SockRef::from(socket).reuse_port()? {
            return Ok(());
        }
    }
    let Some(real) = sockets.first().map(StdListener::local_addr).transpose()? else {
        return Ok(());
    };
    let mut more: Vec<Socket> = Vec::new();
    for _ in sockets.len()..workers {
        let next = socket(real)?;
        next.set_reuse_port(true)?;
        next.bind(&real.into())?;
        more.push(next);
    }
    for next in more {
        next.listen(BACKLOG)?;
        sockets.push(next.into());
    }
    Ok(())
}

/// Each worker at least one, and none left over.
fn deal(sockets: Vec<StdListener>, workers: usize) -> io::Result<Vec<Sockets>> {
    let workers = workers.max(1);
    let mut parts: Vec<_> = (0..workers).map(|_| Sockets(Vec::new())).collect();
    // More workers than sockets: some accept at the same ones.
    for (worker, part) in parts.iter_mut().enumerate().skip(sockets.len()) {
        let shared = sockets.iter().cycle().nth(worker);
        let shared = shared.ok_or(io::ErrorKind::AddrNotAvailable)?;
        part.0.push(shared.try_clone()?);
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(index % workers) {
            part.0.push(socket);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
