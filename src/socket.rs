//! How long TCP itself waits for a peer that says nothing: the second line behind the pings of
//! a session, on both of its legs.
//!
//! Knows the configuration and nothing else; whoever opens a connection asks here.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::TcpPatience;

/// Probes that go unanswered before the connection is given up, a quarter of the silence apart:
/// together they take as long as the silence did.
const PROBES: u32 = 4;

/// Sets `SO_KEEPALIVE` with its times, and `TCP_USER_TIMEOUT`.
///
/// # Errors
/// Those of `setsockopt`: the connection is broken.
pub fn set_patience(stream: &TcpStream, patience: &TcpPatience) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if let Some(silence) = patience.keepalive {
        let apart = (silence / PROBES).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new()
            .with_time(silence)
            .with_interval(apart)
            .with_retries(PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if patience.user_timeout.is_some() {
        socket.set_tcp_user_timeout(patience.user_timeout)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn connection() -> TcpStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        TcpStream::connect(address).await.expect("it connects")
    }

    #[tokio::test]
    async fn the_kernel_has_what_the_configuration_says() {
        let stream = connection().await;
        let patience = TcpPatience {
            keepalive: Some(60 * SECOND),
            user_timeout: Some(120 * SECOND),
        };
        set_patience(&stream, &patience).expect("the options are set");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("asked"));
        assert_eq!(socket.tcp_keepalive_time().expect("asked"), 60 * SECOND);
        assert_eq!(socket.tcp_keepalive_interval().expect("asked"), 15 * SECOND);
        assert_eq!(socket.tcp_keepalive_retries().expect("asked"), 4);
        let timeout = socket.tcp_user_timeout().expect("asked");
        assert_eq!(timeout, Some(120 * SECOND));
    }

    #[tokio::test]
    async fn what_is_off_stays_as_the_system_has_it() {
        let stream = connection().await;
        let patience = TcpPatience {
            keepalive: None,
            user_timeout: None,
        };
        set_patience(&stream, &patience).expect("nothing is set");
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().expect("asked"));
        assert_eq!(socket.tcp_user_timeout().expect("asked"), None);
    }
}
