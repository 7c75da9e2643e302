//! Connections that wait for their next work.
//!
//! Owns one task for each, which answers pings meanwhile. It knows nothing of works.

use std::io;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;

/// Open connections at rest.
pub struct Resting {
    tasks: JoinSet<io::Result<Client>>,
    call: watch::Sender<()>,
}

impl Resting {
    /// None.
    pub fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            call: watch::Sender::new(()),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// One more.
    pub fn add(&mut self, client: Client) {
        self.tasks.spawn(client.rest(self.call.subscribe()));
    }

    /// An error if any has ended.
    pub fn check(&mut self) -> io::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => Err(match ended.map_err(io::Error::other)? {
                Ok(_) => io::Error::other("a connection stopped resting unasked"),
                Err(error) => error,
            }),
        }
    }

    /// All of them, unless one has ended.
    pub async fn call_back(&mut self) -> io::Result<Vec<Client>> {
        self.call.send_replace(());
        let mut clients = Vec::with_capacity(self.tasks.len());
        while let Some(client) = self.tasks.join_next().await {
            clients.push(client.map_err(io::Error::other)??);
        }
        Ok(clients)
    }
}
