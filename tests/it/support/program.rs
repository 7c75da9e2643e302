//! The real program as a child process: its log, its memory, its exit status.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::client::Entrance;
use super::folder::Folder;
use super::settings::Settings;
use super::token::{SECRET, SECRET_NAME};
use super::until;

/// See [`Settings::spawn`]. Killed when dropped.
pub struct Program {
    pub entrance: Entrance,
    child: Child,
    log: Log,
    follower: Option<JoinHandle<()>>,
    pub folder: Folder,
}

/// The lines of the program's standard error so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// Runs the program to its end with the tests' secret in its environment.
pub fn tidegate(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).current_dir(folder);
    command.env(SECRET_NAME, SECRET);
    command.output().expect("it can be run")
}

impl Settings {
    /// Runs the real program with everything in its log, as JSON.
    pub async fn spawn(self) -> Program {
        self.spawn_under(Command::new(env!("CARGO_BIN_EXE_tidegate")), "trace")
            .await
    }

    /// The same with only the usual lines, for those who measure.
    pub async fn spawn_quiet(self) -> Program {
        self.spawn_under(Command::new(env!("CARGO_BIN_EXE_tidegate")), "info")
            .await
    }

    /// The same with room for `descriptors` open files.
    pub async fn spawn_with_descriptors(self, descriptors: usize) -> Program {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}"));
        command.arg(env!("CARGO_BIN_EXE_tidegate"));
        self.spawn_under(command, "debug").await
    }

    /// The program as `command` starts it, with the usual lines in its log.
    pub async fn spawn_by(self, command: Command) -> Program {
        self.spawn_under(command, "info").await
    }

    /// The program, which gets SIGHUP while it reads its configuration from a pipe. It has that
    /// once more, for what it does then.
    pub async fn spawn_and_hang_up(self) -> Program {
        let (folder, certificate) = self.folder();
        let toml = fs::read(folder.path("proxy.toml")).expect("written");
        let pipe = folder.path("pipe.toml");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("a shell's tool").success());
        let child = begin(Command::new(env!("CARGO_BIN_EXE_tidegate")), "info", &pipe);
        let mut reads = until("it reads", || writer(&pipe)).await;
        assert!(signal("HUP", child.id()), "it runs");
        reads.write_all(&toml).expect("room in a pipe");
        drop(reads);
        let program = Program::listening(child, folder, certificate).await;
        let mut reads = until("it reads again", || writer(&pipe)).await;
        reads.write_all(&toml).expect("room in a pipe");
        program
    }

    async fn spawn_under(self, command: Command, level: &str) -> Program {
        let (folder, certificate) = self.folder();
        let child = begin(command, level, &folder.path("proxy.toml"));
        Program::listening(child, folder, certificate).await
    }
}

fn begin(mut command: Command, level: &str, file: &Path) -> Child {
    command
        .args(["run", "--log-format", "json", "--log-level", level])
        .arg("--config")
        .arg(file)
        .env(SECRET_NAME, SECRET)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().expect("it can be run")
}

/// The end of a pipe that is written to, if somebody reads from it.
fn writer(pipe: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(O_NONBLOCK);
    options.open(pipe).ok()
}

/// open(2): an error where nobody reads.
const O_NONBLOCK: i32 = 0o4000;

impl Program {
    async fn listening(
        mut child: Child,
        folder: Folder,
        certificate: CertificateDer<'static>,
    ) -> Self {
        let log = Log::default();
        let follower = Some(log.follow(&mut child));
        let listening = until("it listens", || {
            log.find("listening")
                .or_else(|| match child.try_wait().expect("a child") {
                    Some(status) => panic!("{status}: {:#?}", log.lines()),
                    None => None,
                })
        })
        .await;
        Self {
            entrance: Entrance::new(address(&listening), certificate),
            child,
            log,
            follower,
            folder,
        }
    }

    /// The address of the `n`th listener, from 0.
    pub async fn listener(&self, n: usize) -> SocketAddr {
        let line = until("it listens", || self.log.all("listening").get(n).cloned()).await;
        address(&line)
    }

    /// A file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    pub async fn admin(&self) -> SocketAddr {
        address(&self.said("admin address").await)
    }

    /// Everything logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The `n`th record of a session's end, from 0.
    pub async fn record(&self, n: usize) -> Value {
        until("a session-end record", || {
            self.log.all("session ended").get(n).cloned()
        })
        .await
    }

    /// The next line whose message is `message`.
    pub async fn said(&self, message: &str) -> Value {
        until(message, || self.log.find(message)).await
    }

    /// The `n`th line whose message is `message`, from 0.
    pub async fn said_again(&self, message: &str, n: usize) -> Value {
        until(message, || self.log.all(message).get(n).cloned()).await
    }

    /// How many lines have this message.
    pub fn times_said(&self, message: &str) -> usize {
        self.log.all(message).len()
    }

    pub fn signal(&self, name: &str) {
        assert!(signal(name, self.child.id()), "it runs");
    }

    /// Waits until the program has ended by itself. Another one may go on with its log.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the program ends", || child.try_wait().expect("a child")).await
    }

    /// Waits until the program has ended by itself, and its log is whole.
    pub async fn exited(&mut self) -> ExitStatus {
        let status = self.ended().await;
        let follower = self.follower.take().expect("the first call");
        follower.join().expect("it only collects lines");
        status
    }

    /// Asks the program to end, and asserts that it does so without complaint.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.exited().await;
        assert!(status.success(), "{status}: {:#?}", self.log());
    }

    /// Asserts that the program still runs.
    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert_eq!(ended, None, "{:#?}", self.log());
    }

    /// Resident memory in bytes: `VmRSS:` now, or `VmHWM:` at its highest.
    pub fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.expect("a field").parse::<u64>().expect("a number") << 10
    }

    /// Processor time used so far, in clock ticks (a hundredth of a second on Linux).
    pub fn ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(path).expect("Linux");
        // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields = fields.split_whitespace().skip(11).take(2);
        fields
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum()
    }
}

/// Whether there was a process to send the signal to.
pub fn signal(name: &str, pid: u32) -> bool {
    let kill = format!("kill -s {name} {pid}");
    let mut shell = Command::new("sh");
    let sent = shell.args(["-c", &kill]).stderr(Stdio::null()).status();
    sent.expect("a shell").success()
}

fn address(line: &Value) -> SocketAddr {
    let address = line["address"].as_str().expect("an address");
    address.parse().expect("an address")
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Log {
    /// Collects what `child` says, until it ends.
    fn follow(&self, child: &mut Child) -> JoinHandle<()> {
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let log = self.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.0.lock().expect("nobody panics with it").push(line);
            }
        })
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn find(&self, message: &str) -> Option<Value> {
        self.all(message).into_iter().next()
    }

    fn all(&self, message: &str) -> Vec<Value> {
        let lines = self.lines();
        let parsed = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    }
}
