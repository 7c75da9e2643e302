//! Requests to the admin address, as text.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::raw::{Head, read_head, read_to_end, write};
use super::within;

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    pub head: Head,
    pub body: String,
}

impl Answered {
    pub fn status(&self) -> u16 {
        self.head.status()
    }
}

/// Sends `request` as it stands and reads the answer to its end.
pub async fn send(address: SocketAddr, request: &str) -> Answered {
    let connected = within("a connection", TcpStream::connect(address)).await;
    let mut tcp = connected.expect("the admin address listens");
    write(&mut tcp, request.as_bytes()).await;
    let head = read_head(&mut tcp).await;
    let body = read_to_end(&mut tcp).await;
    Answered {
        head,
        body: String::from_utf8(body).expect("text"),
    }
}

pub async fn get(address: SocketAddr, path: &str) -> Answered {
    send(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await
}

/// `POST` without a body, as `curl -X POST` makes it.
pub async fn post(address: SocketAddr, path: &str) -> Answered {
    send(
        address,
        &format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await
}

/// `POST /revoke` as `curl --json` makes it, with further fields.
pub async fn revoke_with(address: SocketAddr, fields: &str, body: &str) -> Answered {
    let length = body.len();
    let request = format!(
        "POST /revoke HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{fields}\r\n{body}"
    );
    send(address, &request).await
}

/// `POST /revoke`, which must succeed.
pub async fn revoke(address: SocketAddr, body: &str) {
    let answered = revoke_with(address, "", body).await;
    assert_eq!(answered.status(), 200, "{}", answered.body);
}
