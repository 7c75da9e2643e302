//! What the load tells the upstream, past the proxy: to send to everybody, or to flood them.
//!
//! Owns both ends of a connection of its own between load and upstream, one JSON line each way.
//! It knows neither frames nor proxies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// One order; each is answered by one number.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub enum Order {
    /// How many connections are open?
    #[default]
    Count,
    /// One text message of this many bytes to each open connection; answered by their number.
    Broadcast(usize),
    /// Text messages of this many bytes to each open connection, without end; answered by their
    /// number.
    Flood(usize),
    /// How many bytes of floods were taken by the kernel?
    Flooded,
}

/// Where the upstream's connections see the newest order, and book what they sent.
pub struct Board {
    orders: watch::Sender<Order>,
    /// Bytes of floods so far.
    pub flooded: AtomicU64,
}

impl Board {
    /// With no order and no connection.
    pub fn new() -> Self {
        Self {
            orders: watch::Sender::new(Order::Count),
            flooded: AtomicU64::new(0),
        }
    }

    /// For one connection, which counts as open until this is dropped.
    pub fn subscribe(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    /// Serves one control connection until it ends.
    pub async fn serve(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let order: Order = serde_json::from_str(&line)?;
            line.clear();
            let answer = match order {
                Order::Flooded => self.flooded.load(Ordering::Relaxed),
                Order::Count => self.orders.receiver_count() as u64,
                Order::Broadcast(_) | Order::Flood(_) => {
                    self.orders.send_replace(order);
                    self.orders.receiver_count() as u64
                }
            };
            stream.write_all(format!("{answer}\n").as_bytes()).await?;
        }
        Ok(())
    }
}

/// The load's end.
pub struct Control {
    stream: BufReader<TcpStream>,
}

impl Control {
    /// `port`: the upstream's for orders.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Gives one order and takes the answer.
    pub async fn order(&mut self, order: Order) -> io::Result<u64> {
        let order = format!("{}\n", serde_json::to_string(&order)?);
        self.stream.write_all(order.as_bytes()).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        line.trim().parse().map_err(io::Error::other)
    }

    /// Waits until no connection of an earlier run is left, which would take part in this one.
    pub async fn wait_until_nobody_is_there(&mut self) -> io::Result<()> {
        for _ in 0..500 {
            if self.order(Order::Count).await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.order(Order::Count).await?;
        Err(io::Error::other(format!(
            "a proxy still holds {left} connections to the upstream, 10 s after their clients left"
        )))
    }
}
