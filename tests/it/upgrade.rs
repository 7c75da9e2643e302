//! From one process to the next without a gap: the real program, with clients that come all the
//! time; and sockets that somebody else listens on before it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::support::admin::{get, post};
use crate::support::client::Entrance;
use crate::support::folder::Folder;
use crate::support::program::{Program, signal, tidegate};
use crate::support::raw::{opening, read_head, write};
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::echo;
use crate::support::{token::SECRET, token::SECRET_NAME, until, within};

const ADMIN: &str = "[admin]\nbind = \"127.0.0.1:0\"\n";
const TAKEN_OVER: &str = "took over from the process before";
const FAILED: &str = "upgrade failed: this process goes on serving";

/// The process that took another's place: ended with the test, whatever comes.
struct Next(u32);

impl Next {
    /// The `n`th that was started, once it serves.
    async fn serving(program: &Program, n: usize) -> Self {
        until("the next process serves", || {
            assert_eq!(program.times_said(FAILED), 0, "{:#?}", program.log());
            (program.times_said(TAKEN_OVER) > n).then_some(())
        })
        .await;
        Self(started(program, n).await)
    }

    /// Ends it in good order.
    async fn stop(self, program: &Program) {
        let before = program.times_said("drained");
        assert!(signal("TERM", self.0), "it runs");
        until("it has drained", || {
            (program.times_said("drained") > before).then_some(())
        })
        .await;
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        // It has ended, where the test did not fail; its number may be another's by now.
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", self.0));
        if arguments.is_ok_and(|arguments| arguments.contains("--take-over")) {
            let _gone = signal("KILL", self.0);
        }
    }
}

/// The number of the `n`th process that was started, from 0.
async fn started(program: &Program, n: usize) -> u32 {
    const STARTED: &str = "upgrade: a new process is started, and takes the listening sockets over";
    let line = until("a process is started", || {
        let lines = program.log().into_iter();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.filter(|line| line["message"] == STARTED).nth(n)
    });
    let pid = line.await["pid"].as_u64().expect("a number");
    u32::try_from(pid).expect("a process's number")
}

/// Clients that come all the time, and what went wrong with them.
struct Storm {
    over: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Storm {
    fn begin(entrance: &Entrance) -> Self {
        let mut storm = Self {
            over: Arc::default(),
            opened: Arc::default(),
            clients: JoinSet::new(),
        };
        for _ in 0..8 {
            let (over, opened) = (Arc::clone(&storm.over), Arc::clone(&storm.opened));
            let entrance = entrance.clone();
            storm.clients.spawn(async move {
                let mut failed = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match attempt(&entrance).await {
                        Ok(()) => drop(opened.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.push(error),
                    }
                }
                failed
            });
        }
        storm
    }

    /// Waits until so many more have got in.
    async fn more(&self, n: usize) {
        let before = self.opened.load(Ordering::Relaxed);
        until("clients get in", || {
            (self.opened.load(Ordering::Relaxed) >= before + n).then_some(())
        })
        .await;
    }

    /// Asserts that everyone got in.
    async fn calm(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        while let Some(failed) = within("a client", self.clients.join_next()).await {
            assert_eq!(failed.expect("no panic"), Vec::<String>::new());
        }
        self.opened.load(Ordering::Relaxed)
    }
}

/// A connection, TLS and a 101: whatever is refused on the way is the error.
async fn attempt(entrance: &Entrance) -> Result<(), String> {
    let tcp = tokio::net::TcpStream::connect(entrance.address).await;
    let tcp = tcp.map_err(|error| format!("connect: {error}"))?;
    let tls = entrance.tls_over(tcp).await;
    let mut tls = tls.map_err(|error| format!("TLS: {error}"))?;
    write(&mut tls, opening("/chat").text().as_bytes()).await;
    let mut status = [0; 12];
    let read = within("an answer", tls.read_exact(&mut status)).await;
    read.map_err(|error| format!("answer: {error}"))?;
    match &status {
        b"HTTP/1.1 101" => Ok(()),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}

fn with_workers(program: &Program, from: usize, to: usize) {
    let file = program.path("proxy.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    let (from, to) = (format!("workers = {from}"), format!("workers = {to}"));
    assert!(text.contains(&from), "{text}");
    fs::write(&file, text.replace(&from, &to)).expect("written");
}

#[tokio::test]
async fn nobody_is_refused_while_one_process_takes_anothers_place_with_other_workers() {
    let upstream = echo().await;
    let settings = proxy(upstream.address).workers(3).more(ADMIN);
    let mut program = settings.spawn_quiet().await;
    let admin = program.admin().await;
    let mut session = program.entrance.admitted().await;
    session.echoes("before").await;
    let storm = Storm::begin(&program.entrance);
    storm.more(50).await;

    // Fewer workers than sockets: all of those are accepted at.
    with_workers(&program, 3, 1);
    program.signal("USR2");
    let second = Next::serving(&program, 0).await;
    assert_eq!(session.closed().await, (1012, "restarting".to_owned()));
    assert_eq!(program.ended().await.code(), Some(0));
    storm.more(50).await;

    // More: others are bound beside them. The process that took over can be replaced as well.
    with_workers(&program, 1, 4);
    assert!(signal("USR2", second.0));
    let third = Next::serving(&program, 1).await;
    until("the second process has drained", || {
        (program.times_said("drained") >= 2).then_some(())
    })
    .await;
    storm.more(50).await;
    let opened = storm.calm().await;
    assert!(opened >= 150, "{opened}");

    let mut session = program.entrance.admitted().await;
    session.echoes("after").await;
    let answered = get(admin, "/upgrade").await;
    let standing: Value = serde_json::from_str(&answered.body).expect("JSON");
    assert_eq!(standing["pid"], third.0);
    drop(session);
    third.stop(&program).await;
}

#[tokio::test]
async fn a_client_that_was_let_in_before_is_served_by_who_let_it_in() {
    let upstream = echo().await;
    let settings = proxy(upstream.address).drain("spread = \"1s\"");
    let mut program = settings.spawn().await;
    let mut tls = program.entrance.tls().await;
    program.signal("USR2");
    let next = Next::serving(&program, 0).await;
    program
        .said("handed over: the new process serves, sessions here are closed with 1012")
        .await;
    write(&mut tls, opening("/chat").text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    drop(tls);
    assert_eq!(program.ended().await.code(), Some(0));
    next.stop(&program).await;
}

/// A copy of the configuration that says where the admin address is.
async fn for_clients(program: &Program) {
    let admin = program.admin().await;
    let text = fs::read_to_string(program.path("proxy.toml")).expect("the configuration");
    let with_port = ADMIN.replace("127.0.0.1:0", &admin.to_string());
    assert!(text.contains(ADMIN));
    fs::write(program.path("client.toml"), text.replace(ADMIN, &with_port)).expect("written");
}

/// `tidegate upgrade`, beside which the test goes on.
async fn upgrade(program: &Program) -> Output {
    let folder = program.path(".");
    let running = tokio::task::spawn_blocking(move || {
        tidegate(&["upgrade", "--config", "client.toml"], &folder)
    });
    within("the end of the command", running)
        .await
        .expect("it ends")
}

#[tokio::test]
async fn a_process_that_cannot_serve_changes_nothing_and_says_why() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address).more(ADMIN).spawn_quiet().await;
    for_clients(&program).await;
    let mut session = program.entrance.admitted().await;
    session.echoes("before").await;
    let good = fs::read_to_string(program.path("proxy.toml")).expect("the configuration");
    // Refused by the check of the configuration, and only when it is to start.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = taken.local_addr().expect("bound");
    let second = format!("[[listener]]\nbind = \"{address}\"\nplaintext = true\n");
    for (bad, why) in [
        (good.replace("workers = 1", "workers = 0"), "is refused"),
        (format!("{good}\n{second}"), "cannot listen on"),
    ] {
        fs::write(program.path("proxy.toml"), bad).expect("written");
        let output = upgrade(&program).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("not upgraded") && said.contains(why),
            "{said}"
        );
        program.assert_running();
        session.echoes("it goes on").await;
        program.entrance.admitted().await.echoes("so does it").await;
    }
    assert_eq!(program.times_said(FAILED), 2);

    fs::write(program.path("proxy.toml"), good).expect("written");
    let output = upgrade(&program).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let next = Next(started(&program, 2).await);
    assert!(
        said.contains(&format!("process {} serves in place of", next.0)),
        "{said}"
    );
    assert_eq!(session.closed().await.0, 1012);
    assert_eq!(program.ended().await.code(), Some(0));
    program.entrance.admitted().await.echoes("anew").await;
    next.stop(&program).await;
}

#[tokio::test]
async fn a_process_that_is_told_to_end_does_not_leave_the_next_one_behind() {
    let upstream = echo().await;
    let settings = proxy(upstream.address).more(ADMIN);
    // The next process waits for its configuration.
    let mut program = settings.spawn_quiet().await;
    let file = program.path("proxy.toml");
    fs::remove_file(&file).expect("it was there");
    let made = Command::new("mkfifo").arg(&file).status();
    assert!(made.expect("it can be run").success());
    let admin = program.admin().await;
    assert_eq!(post(admin, "/upgrade").await.status(), 202);
    let next = started(&program, 0).await;
    let answered = get(admin, "/upgrade").await;
    assert!(answered.body.contains("\"starting\""), "{}", answered.body);
    program.signal("TERM");
    assert_eq!(program.exited().await.code(), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{next}")).exists());
}

/// A socket that somebody else listens on.
fn passed() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// Starts the program as a service manager does: `socket` is its descriptor 3.
fn manager(socket: &TcpListener) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=https exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .stdin(OwnedFd::from(socket.try_clone().expect("a descriptor")));
    command
}

#[tokio::test]
async fn sockets_of_a_service_manager_are_used_and_outlive_the_process() {
    let upstream = echo().await;
    let (socket, address) = passed();
    let settings = proxy(upstream.address).bind(address).workers(2);
    let mut program = settings.spawn_by(manager(&socket)).await;
    assert_eq!(program.entrance.address, address);
    for _ in 0..10 {
        program.entrance.admitted().await.echoes("hello").await;
    }
    program.signal("USR2");
    let next = Next::serving(&program, 0).await;
    assert_eq!(program.ended().await.code(), Some(0));
    program
        .entrance
        .admitted()
        .await
        .echoes("hello again")
        .await;
    next.stop(&program).await;
    // Whoever comes now waits for the next start, and is not refused.
    TcpStream::connect(address).expect("the manager listens");
    drop(socket);
}

#[tokio::test]
async fn a_socket_that_no_listener_has_is_refused() {
    let upstream = echo().await;
    let (socket, address) = passed();
    let settings: Settings = proxy(upstream.address);
    let (folder, _) = settings.folder();
    let output = manager(&socket)
        .args(["run", "--config"])
        .arg(folder.path("proxy.toml"))
        .env(SECRET_NAME, SECRET)
        .stdout(Stdio::null())
        .output();
    let output = output.expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("a socket for {address}")), "{said}");
    // And nobody starts the newer process by hand.
    let output = tidegate(&["run", "--take-over"], folder.root());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody hands sockets over"), "{said}");
}

/// What the program says to a service manager.
struct Manager {
    socket: tokio::net::UnixDatagram,
    heard: Vec<String>,
    _folder: Folder,
}

impl Manager {
    fn listen() -> (Self, PathBuf) {
        let folder = Folder::new();
        let path = folder.path("notify");
        let socket = tokio::net::UnixDatagram::bind(&path).expect("bound");
        let manager = Self {
            socket,
            heard: Vec::new(),
            _folder: folder,
        };
        (manager, path)
    }

    /// Waits until a message holds `part`; what was said before is forgotten.
    async fn hears(&mut self, part: &str) -> String {
        within(part, async {
            loop {
                let mut text = [0; 1024];
                let n = self.socket.recv(&mut text).await.expect("a message");
                let text = String::from_utf8_lossy(&text[..n]).into_owned();
                if text.contains(part) {
                    return text;
                }
                self.heard.push(text);
            }
        })
        .await
    }
}

#[tokio::test]
async fn the_service_manager_hears_how_the_process_stands() {
    let upstream = echo().await;
    let (mut manager, path) = Manager::listen();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000");
    let settings = proxy(upstream.address).workers(2);
    let mut program = settings.spawn_by(command).await;
    manager.hears("READY=1").await;
    manager.hears("WATCHDOG=1").await;
    program.signal("HUP");
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1").await;
    program.signal("USR2");
    let taken_over = manager.hears("MAINPID=").await;
    let next = Next(started(&program, 0).await);
    assert!(
        taken_over.contains(&format!("MAINPID={}\n", next.0)),
        "{taken_over}"
    );
    assert_eq!(program.ended().await.code(), Some(0));
    // The process that was replaced said nothing of an end.
    assert!(!manager.heard.iter().any(|text| text.contains("STOPPING")));
    manager.hears("WATCHDOG=1").await;
    next.stop(&program).await;
    manager.hears("STOPPING=1").await;
}
