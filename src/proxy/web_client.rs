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
use crate::tls::{ClientStream, Connector};

/// Asks services that one set of roots vouches for.
#[derive(Clone, Debug)]
pub struct WebClient {
    /// `None`: for services on this machine only, which are asked in clear.
    connector: Option<Connector>,
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
        Ok(Self {
            connector: Some(connector),
        })
    }

    /// The same for this one service: where it is asked in clear nobody has to vouch for it,
    /// and the system needs no roots.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn to(url: &WebUrl, ca: Option<&Path>) -> io::Result<Self> {
        match (url.scheme(), ca) {
            (Scheme::Http, None) => Ok(Self { connector: None }),
            _ => Self::new(ca),
        }
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
                let connected = self.over_tls(tcp, url.host()).await;
                let tls = connected.map_err(|error| NotAnswered::Tls(url.to_string(), error))?;
                exchange(tls, request).await
            }
        };
        answer.map_err(|failed| NotAnswered::Exchange(url.to_string(), failed))
    }

    async fn over_tls(&self, tcp: TcpStream, name: &str) -> io::Result<ClientStream> {
        let Some(connector) = &self.connector else {
            return Err(io::Error::other("this client was made for another service"));
        };
        let (tls, _version) = connector.connect(tcp, name).await?;
        Ok(tls)
    }
}

async fn connect(url: &WebUrl) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((url.host(), url.port())).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

#[cfg(test)]
mod tests;
