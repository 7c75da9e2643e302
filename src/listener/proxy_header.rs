//! Takes the header of the PROXY protocol from a connection, and not a byte more.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::proto::proxy_header::{LARGEST, NotAProxyHeader, parse};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoProxyHeader {
    /// What is there is none.
    #[error(transparent)]
    Malformed(#[from] NotAProxyHeader),
    /// Not all of it came in time.
    #[error("the PROXY header did not arrive in time")]
    TimedOut,
    /// The connection ended before it was there: also how balancers see whether we listen.
    #[error("the connection ended before the PROXY header")]
    PeerGone,
    /// The connection failed.
    #[error("the connection failed before the PROXY header")]
    Io(#[from] io::Error),
}

/// Reads the header that `tcp` must begin with, by `deadline`. What follows it is left where
/// it is. `None`: the balancer does not say where the connection comes from.
///
/// # Errors
/// See [`NoProxyHeader`]. The connection is of no use then.
pub async fn read_proxy_header(
    tcp: &mut TcpStream,
    deadline: Instant,
) -> Result<Option<SocketAddr>, NoProxyHeader> {
    // Boxed, so that the task that waits here stays small.
    match timeout_at(deadline, Box::pin(read(tcp))).await {
        Ok(read) => read,
        Err(_) => Err(NoProxyHeader::TimedOut),
    }
}

/// Looks at what is there, then takes of it what belongs to the header: all, as long as the
/// header goes on. So every wait is for new bytes, and at most [`LARGEST`] are held.
async fn read(tcp: &mut TcpStream) -> Result<Option<SocketAddr>, NoProxyHeader> {
    let (mut header, mut seen) = (Vec::new(), vec![0; LARGEST]);
    loop {
        let begun = header.len();
        let more = tcp.peek(&mut seen).await?;
        if more == 0 {
            return Err(NoProxyHeader::PeerGone);
        }
        header.extend_from_slice(seen.get(..more).unwrap_or_default());
        let parsed = parse(&header)?;
        // A whole header ends in what was just seen, or it had been whole before.
        let taken = parsed.map_or(more, |parsed| parsed.len.saturating_sub(begun));
        header.truncate(begun + taken);
        tcp.read_exact(seen.get_mut(..taken).unwrap_or_default())
            .await?;
        if let Some(parsed) = parsed {
            return Ok(parsed.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n";

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connected"), far.expect("accepted").0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_where_it_is() {
        let (mut balancer, mut tcp) = pair().await;
        let bytes = [LINE, b"\x16\x03\x01 the rest"].concat();
        balancer.write_all(&bytes).await.expect("taken");
        let client = read_proxy_header(&mut tcp, soon()).await.expect("a header");
        assert_eq!(client, Some("192.0.2.7:56789".parse().expect("an address")));
        let mut rest = [0; 12];
        tcp.read_exact(&mut rest).await.expect("the rest");
        assert_eq!(&rest, b"\x16\x03\x01 the rest");
    }

    #[tokio::test]
    async fn a_header_may_come_byte_by_byte() {
        let (mut balancer, mut tcp) = pair().await;
        balancer.set_nodelay(true).expect("an option is set");
        let reading = async { read_proxy_header(&mut tcp, soon()).await };
        let writing = async {
            for byte in LINE {
                balancer.write_all(&[*byte]).await.expect("taken");
                tokio::task::yield_now().await;
            }
        };
        let (client, ()) = tokio::join!(reading, writing);
        assert!(client.expect("a header").is_some());
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_in_time_is_given_up() {
        let (mut balancer, mut tcp) = pair().await;
        balancer.write_all(b"PROXY TCP4").await.expect("taken");
        let deadline = Instant::now() + Duration::from_millis(20);
        let read = read_proxy_header(&mut tcp, deadline).await;
        assert!(matches!(read, Err(NoProxyHeader::TimedOut)), "{read:?}");
    }

    #[tokio::test]
    async fn a_connection_that_ends_or_speaks_otherwise_is_given_up() {
        let (balancer, mut tcp) = pair().await;
        drop(balancer);
        let read = read_proxy_header(&mut tcp, soon()).await;
        assert!(matches!(read, Err(NoProxyHeader::PeerGone)), "{read:?}");
        let (mut balancer, mut tcp) = pair().await;
        balancer
            .write_all(b"GET / HTTP/1.1\r\n")
            .await
            .expect("taken");
        let read = read_proxy_header(&mut tcp, soon()).await;
        assert!(matches!(read, Err(NoProxyHeader::Malformed(_))), "{read:?}");
    }
}
