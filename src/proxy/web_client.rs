//! The edge's own requests to web services, connection included, within one time.
//!
//! Joins `tls` and `outbound`. No proxy is taken from the environment, nothing is followed,
//! nothing tried again, and no connection kept: whoever asks decides about all that.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::url::{Scheme, WebUrl};
use crate::outbound::{Answer, Failed, Request, exchange};
use crate::tls::Connector;

/// Asks services that one set of roots vouches for.
#[derive(Clone, Debug)]
pub struct WebClient {
    connector: Connector,
}

/// Why a service gave no answer. `Display` and its sources are for the log.
#[derive(Debug, thiserror::Error)]
pub enum NotAnswered {
    /// Its name cannot be resolved, or nothing listens there; of the last address tried.
    #[error("no connection to {0}")]
    Unreachable(String, #[source] io::Error),
    /// Its certificate is not trusted for its name, or it speaks no TLS.
    #[error("no TLS connection to {0}")]
    Tls(String, #[source] io::Error),
    /// The time is over.
    #[error("no whole answer from {0} within {1:?}")]
    TimedOut(String, Duration),
    /// What came is no answer within bounds.
    #[error("no good answer from {0}")]
    Exchange(String, #[source] Failed),
}

impl WebClient {
    /// Trusts the certificates of the PEM file `ca`, or without it the system's.
    ///
    /// # Errors
    /// No certificate that can be trusted is found.
    pub fn new(ca: Option<&Path>) -> io::Result<Self> {
        let connector = Connector::to_services(ca)?;
        Ok(Self { connector })
    }

    /// Resolves, connects, asks and reads the whole answer, all of it `within` this time.
    ///
    /// The future is small, and dropping it closes the connection.
    ///
    /// # Errors
    /// Whatever is not a whole answer; see [`NotAnswered`]. A status of 400 and more is an
    /// answer.
    pub async fn ask(&self, request: Request<'_>, within: Duration) -> Result<Answer, NotAnswered> {
        let url = request.url;
        let asked = Box::pin(timeout(within, self.ask_untimed(request))).await;
        asked.unwrap_or_else(|_| Err(NotAnswered::TimedOut(url.to_string(), within)))
    }

    async fn ask_untimed(&self, request: Request<'_>) -> Result<Answer, NotAnswered> {
        let url = request.url;
        let tcp = connect(url)
            .await
            .map_err(|error| NotAnswered::Unreachable(url.to_string(), error))?;
        let answer = match url.scheme() {
            Scheme::Http => exchange(tcp, request).await,
            Scheme::Https => {
                let connected = self.connector.connect(tcp, url.host()).await;
                let (tls, _) =
                    connected.map_err(|error| NotAnswered::Tls(url.to_string(), error))?;
                exchange(tls, request).await
            }
        };
        answer.map_err(|failed| NotAnswered::Exchange(url.to_string(), failed))
    }
}

async fn connect(url: &WebUrl) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((url.host(), url.port())).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests;
