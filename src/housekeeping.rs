//! What the process does beside its connections: chores on one thread with a runtime of its
//! own, so that a slow disk or a slow service delays no session.
//!
//! The admin address, the watching of files and the refreshing of keys are chores; `server`
//! makes them and starts the thread. A chore talks to the workers through what they share and
//! read (an `Arc`, a `watch`), never the other way round. Knows nothing of what chores do.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Something that goes on as long as the process serves.
pub struct Chore {
    name: &'static str,
    begin: Box<dyn FnOnce() -> Running + Send>,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

impl Chore {
    /// `begin` is called on the thread of housekeeping, so what it makes need not be `Send`.
    /// The future is dropped when the process ends. One that returns early is done for good;
    /// one that panics is reported under its `name`, and the others go on.
    pub fn new<F: Future<Output = ()> + 'static>(
        name: &'static str,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        Self {
            name,
            begin: Box::new(move || Box::pin(begin())),
        }
    }
}

impl fmt::Debug for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chore").field(&self.name).finish()
    }
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Housekeeping {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Housekeeping {
    /// Starts the thread, and on it every chore.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(chores: Vec<Chore>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("housekeeping".to_owned())
            .spawn(move || work(chores, stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends the chores, wherever they are, and waits for the thread.
    ///
    /// # Errors
    /// It panicked.
    pub fn join(self) -> thread::Result<()> {
        drop(self.stop);
        self.thread.join()
    }
}

fn work(chores: Vec<Chore>, stopped: oneshot::Receiver<()>) {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                () = keep_house(chores) => {}
                // Nothing is ever sent: it resolves when the sender is gone.
                _ = stopped => {}
            }
        }),
        Err(error) => tracing::error!(%error, "housekeeping cannot start"),
    }
}

/// Never returns.
async fn keep_house(chores: Vec<Chore>) {
    let mut running = JoinSet::new();
    for Chore { name, begin } in chores {
        // By its name, since what a panic says has been printed by then.
        let ended = async move {
            let ended = tokio::task::spawn_local(async move { begin().await }).await;
            ended.err().map(|_| name)
        };
        running.spawn_local(ended);
    }
    while let Some(ended) = running.join_next().await {
        if let Ok(Some(chore)) = ended {
            tracing::error!(chore, "a bug ended a part of the housekeeping");
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn chores_run_until_the_thread_is_joined() {
        let (said, heard) = mpsc::channel();
        let chore = |name: &'static str| {
            let said = said.clone();
            Chore::new(name, move || async move {
                said.send(name).expect("somebody listens");
                std::future::pending::<()>().await;
            })
        };
        let housekeeping = Housekeeping::start(vec![chore("one"), chore("two")]).expect("a thread");
        drop(said);
        let mut both = [heard.recv().expect("one"), heard.recv().expect("two")];
        both.sort_unstable();
        assert_eq!(both, ["one", "two"]);
        housekeeping.join().expect("no panic");
        // The chores are gone, and with them their senders.
        assert!(heard.recv().is_err());
    }

    #[test]
    fn a_chore_that_panics_takes_no_other_with_it() {
        let (said, heard) = mpsc::channel();
        let broken = Chore::new("broken", || async { panic!("a bug") });
        let good = Chore::new("good", move || async move {
            tokio::task::yield_now().await;
            said.send(()).expect("somebody listens");
        });
        let housekeeping = Housekeeping::start(vec![broken, good]).expect("a thread");
        heard.recv().expect("the good one goes on");
        housekeeping.join().expect("no panic");
    }
}
