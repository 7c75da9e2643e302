//! `tidegate upgrade`: asks the running process, at its admin address, to be replaced, and waits
//! until another one answers there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CONFIG, env, report, say};
use crate::admin::Token;
use crate::config::problem::Loaded;
use crate::config::{self, Admin};

/// Replaces the process that serves `file`; 0 when another one serves.
pub fn upgrade(file: &Path) -> ExitCode {
    let Loaded { config, text, .. } = match config::load(file) {
        Ok(loaded) => loaded,
        Err(refused) => {
            report(file, &refused.problems, &refused.text);
            return ExitCode::from(CONFIG);
        }
    };
    let Some(admin) = &config.admin else {
        say(&format!(
            "error: {} has no [admin], so the process cannot be asked; send it SIGUSR2 in place \
             of this, and read its log\n",
            file.display()
        ));
        return ExitCode::from(CONFIG);
    };
    let desk = match Desk::of(admin) {
        Ok(desk) => desk,
        Err(problems) => {
            report(file, &problems, &text);
            return ExitCode::from(CONFIG);
        }
    };
    match replace(&desk) {
        Ok((old, new)) => {
            say(&format!(
                "upgraded: process {new} serves in place of {old}\n"
            ));
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("error: not upgraded: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn replace(desk: &Desk) -> Result<(u64, u64), String> {
    let asked = |error: io::Error| format!("{}: {error}", desk.address);
    let old = Standing::read(&desk.ask("GET").map_err(asked)?)?.pid;
    let (status, body) = desk.ask("POST").map_err(asked)?;
    if status != 202 {
        return Err(format!(
            "{} answers {status}: {}",
            desk.address,
            body.trim()
        ));
    }
    let asked_at = Instant::now();
    let mut begun = false;
    while asked_at.elapsed() < PATIENCE {
        thread::sleep(ASK_EVERY);
        // One of the two may just have closed the connection.
        let Ok(answer) = desk.ask("GET") else {
            continue;
        };
        let standing = Standing::read(&answer)?;
        if standing.pid != old {
            return Ok((old, standing.pid));
        }
        begun |= standing.state == "starting";
        // What failed before this attempt is not news.
        if standing.state == "failed" && (begun || asked_at.elapsed() > BEGIN) {
            return Err(standing.why);
        }
    }
    Err(format!("no other process serves after {PATIENCE:?}"))
}

/// What `GET /upgrade` says.
struct Standing {
    pid: u64,
    state: String,
    why: String,
}

impl Standing {
    fn read((status, body): &(u16, String)) -> Result<Self, String> {
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        match (status, value.get("pid").and_then(Value::as_u64)) {
            (200, Some(pid)) => Ok(Self {
                pid,
                state: text("upgrade"),
                why: text("why"),
            }),
            _ => Err(format!("GET /upgrade answers {status}: {}", body.trim())),
        }
    }
}

/// The admin address, and what it wants to see.
struct Desk {
    address: SocketAddr,
    token: Option<Token>,
}

impl Desk {
    fn of(admin: &Admin) -> Result<Self, Vec<config::problem::Problem>> {
        let token = admin.token.as_ref().map(|token| Token::load(token, &env));
        let token = token.transpose()?.map(|(token, _)| token);
        let ip = match admin.bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, admin.bind.port());
        Ok(Self { address, token })
    }

    /// The status and the body of an answer from `/upgrade`.
    fn ask(&self, method: &str) -> io::Result<(u16, String)> {
        let mut tcp = TcpStream::connect_timeout(&self.address, EXCHANGE)?;
        tcp.set_read_timeout(Some(EXCHANGE))?;
        tcp.set_write_timeout(Some(EXCHANGE))?;
        let mut request =
            format!("{method} /upgrade HTTP/1.1\r\nHost: {}\r\n", self.address).into_bytes();
        if let Some(token) = &self.token {
            request.extend_from_slice(b"Authorization: ");
            request.extend_from_slice(&token.to_field());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        tcp.write_all(&request)?;
        let mut answer = Vec::new();
        tcp.take(MAX_ANSWER).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or(io::ErrorKind::InvalidData)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, body.to_owned()))
    }
}

/// For one request and its answer.
const EXCHANGE: Duration = Duration::from_secs(5);

/// Bytes of an answer: the reason of a failure is the longest.
const MAX_ANSWER: u64 = 64 * 1024;

/// How often it is asked how it goes.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Until then a process that was asked has begun.
const BEGIN: Duration = Duration::from_secs(1);

/// A little longer than the running process waits for the new one.
const PATIENCE: Duration = Duration::from_secs(70);
