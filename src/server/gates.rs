//! The listening sockets of the process: those of a listener that stays are kept when another
//! configuration is taken, so that nobody who comes meanwhile is refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Listener;
use crate::listener::{Sockets, Stock};
use crate::proxy::{Encryption, Entrance};
use crate::server::doors::{Door, Gate, Manner};
use crate::tls::Acceptor;

/// The listeners in force, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Gates {
    standing: Vec<Standing>,
    next: u64,
    stock: Stock,
    /// That of the admin address, which is none of them and stays.
    admin: Option<SocketAddr>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Standing {
    gate: Gate,
    /// As configured, with port 0 where it says so.
    bind: SocketAddr,
}

/// What there will be: the gates, and for each its sockets if it is new.
pub(super) struct Plan {
    gates: Gates,
    sockets: Vec<Option<Vec<Sockets>>>,
}

impl Gates {
    /// None yet, of a process that has the admin address `admin`.
    pub(super) const fn new(stock: Stock, admin: Option<SocketAddr>) -> Self {
        Self {
            standing: Vec::new(),
            next: 0,
            stock,
            admin,
        }
    }

    /// Binds what is new. Nothing else happens before [`Plan::doors`].
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub(super) fn plan(&self, listeners: &[Listener], workers: usize) -> io::Result<Plan> {
        let mut plan = Plan {
            gates: Self {
                standing: Vec::new(),
                next: self.next,
                stock: self.stock.clone(),
                admin: self.admin,
            },
            sockets: Vec::new(),
        };
        for listener in listeners {
            let bind = listener.bind;
            // Several may be bound to port 0: each goes on as one of them.
            let taken = |gate| plan.gates.standing.iter().any(|known| known.gate == gate);
            let known = self.standing.iter();
            let known = known.filter(|known| known.bind == bind && !taken(known.gate));
            let (gate, sockets) = match known.map(|known| known.gate).next() {
                Some(gate) => (gate, None),
                None => (plan.gates.new_gate(), Some(self.stock.bind(bind, workers)?)),
            };
            plan.gates.standing.push(Standing { gate, bind });
            plan.sockets.push(sockets);
        }
        Ok(plan)
    }

    /// Lets go of the sockets of listeners that are gone, and of those that were bound for a
    /// plan of which nothing came.
    pub(super) fn keep(&self) {
        let binds = self.standing.iter().map(|standing| standing.bind);
        let binds: Vec<_> = binds.chain(self.admin).collect();
        self.stock.keep(&binds);
    }

    fn new_gate(&mut self) -> Gate {
        self.next += 1;
        Gate(self.next)
    }
}

impl Plan {
    /// The addresses of what is new, with real ports.
    ///
    /// # Errors
    /// Those of `getsockname`, which has none for a bound socket.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let new = self.sockets.iter().flatten();
        new.filter_map(|sockets| sockets.first())
            .map(Sockets::local_addr)
            .collect()
    }

    /// How one more worker takes part.
    pub(super) fn doors(
        &mut self,
        listeners: &[Listener],
        acceptors: &[Option<Acceptor>],
    ) -> Vec<Door> {
        let gates = self.gates.standing.iter().zip(&mut self.sockets);
        let gates = gates.zip(listeners.iter().zip(acceptors));
        gates
            .map(|((standing, sockets), (listener, acceptor))| Door {
                gate: standing.gate,
                sockets: sockets.as_mut().and_then(Vec::pop),
                manner: manner(listener, acceptor.as_ref()),
            })
            .collect()
    }

    /// What stands from now on.
    pub(super) fn into_gates(self) -> Gates {
        self.gates
    }
}

fn manner(listener: &Listener, acceptor: Option<&Acceptor>) -> Manner {
    let encryption = match (&listener.tls, acceptor) {
        (Some(tls), Some(acceptor)) => Encryption::Tls {
            acceptor: acceptor.clone(),
            timeout: tls.handshake_timeout,
        },
        _ => Encryption::Plaintext,
    };
    let entrance = Entrance {
        encryption,
        trust: listener.trust.clone(),
        tcp: listener.tcp,
    };
    Manner {
        notsent_lowat: listener.notsent_lowat,
        entrance: Arc::new(entrance),
    }
}
