//! Messages to and fro over open connections: all busy, in turns, or at a fixed rate.
//!
//! Owns who sends when. It takes connections and gives them back with the time of each message; it
//! opens and closes none.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::exchange::Batch;

/// Tasks that each give back connections and nanoseconds, one for each message.
pub type Tasks = JoinSet<io::Result<(Vec<Client>, Vec<u32>)>>;

/// Each connection keeps a batch under way until `until`.
pub fn all_busy(clients: Vec<Client>, batch: &Arc<Batch>, until: Instant) -> Tasks {
    let mut tasks = Tasks::new();
    for mut client in clients {
        let batch = Arc::clone(batch);
        tasks.spawn(async move {
            let times = client.echo(&batch, until, &mut vec![0; SCRATCH]).await?;
            Ok((vec![client], times))
        });
    }
    tasks
}

/// `at_once` batches are under way, each on another connection; every connection has its turn.
pub fn in_turns(
    mut clients: Vec<Client>,
    at_once: usize,
    batch: &Arc<Batch>,
    until: Instant,
) -> Tasks {
    let mut tasks = Tasks::new();
    for left in (1..=at_once).rev() {
        let mut share = clients.split_off(clients.len() - clients.len() / left);
        let batch = Arc::clone(batch);
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut scratch = vec![0; SCRATCH];
            while Instant::now() < until && !share.is_empty() {
                for client in &mut share {
                    // Its time is up at once: one batch, and no second.
                    let now = Instant::now();
                    if now >= until {
                        break;
                    }
                    times.extend(client.echo(&batch, now, &mut scratch).await?);
                }
            }
            Ok((share, times))
        });
    }
    tasks
}

/// One message every `1 / per_second`, on one connection after another, for `run`, whether or not
/// earlier ones have come back. Times count from when a message was due and the clock noticed; how
/// late the clock was is no fault of the proxy's.
pub fn paced(clients: Vec<Client>, per_second: f64, batch: &Arc<Batch>, run: Duration) -> Tasks {
    let mut tasks = Tasks::new();
    let mut senders = Vec::with_capacity(clients.len());
    for mut client in clients {
        let batch = Arc::clone(batch);
        let (sender, moments) = mpsc::unbounded_channel();
        senders.push(sender);
        tasks.spawn(async move {
            let times = client.paced(&batch, moments).await?;
            Ok((vec![client], times))
        });
    }
    // A thread, because timers of the runtime are a millisecond coarse.
    std::thread::spawn(move || keep_time(&senders, per_second, run));
    tasks
}

fn keep_time(senders: &[mpsc::UnboundedSender<Instant>], per_second: f64, run: Duration) {
    let begun = Instant::now();
    let mut turns = senders.iter().cycle();
    for message in 0_u32.. {
        let due = Duration::from_secs_f64(f64::from(message) / per_second);
        if due >= run {
            return;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let Some(sender) = turns.next() else {
            return;
        };
        if sender.send(Instant::now()).is_err() {
            // Its connection failed, which its task reports.
            return;
        }
    }
}

/// Plaintext taken from TLS at a time: one full record.
const SCRATCH: usize = 16 * 1024;
