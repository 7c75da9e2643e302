//! Processes: how they are started, pinned, spoken to and, above all, ended.
//!
//! Owns the life of every process the bench starts. A child ends when its value is dropped, which
//! also happens after a signal (`stop.rs`); should the bench itself be killed, helpers of ours see
//! their standard input end, and the kernel tells the others (`setpriv --pdeathsig`). It knows
//! nothing of what the children do.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::measure;
use crate::stop;

/// Which cores are used, and which tools of util-linux are there to say so.
pub struct Launcher {
    /// Core of the proxy and core of load and upstream; `None`: not pinned.
    cores: Option<(usize, usize)>,
    has_setpriv: bool,
}

/// Which side of the fence a process is on.
#[derive(Clone, Copy)]
pub enum Place {
    /// The proxy under test: the first core.
    Proxy,
    /// Load and upstream: the second core.
    Load,
}

impl Launcher {
    /// Looks for two cores and for `taskset` and `setpriv`.
    pub fn detect() -> io::Result<Self> {
        let cores = match measure::allowed_cores()?[..] {
            [first, second, ..] if find_program("taskset").is_some() => Some((first, second)),
            _ => None,
        };
        Ok(Self {
            cores,
            has_setpriv: find_program("setpriv").is_some(),
        })
    }

    /// How the processes are placed, in words for the report.
    pub fn placement(&self) -> String {
        match self.cores {
            Some((proxy, load)) => format!("proxy on core {proxy}, load and upstream on {load}"),
            None => "UNPINNED: needs two cores and taskset (Debian: util-linux); \
                     the figures are not comparable with pinned ones"
                .to_owned(),
        }
    }

    /// A command that runs `program` on its core and ends with the bench. A Ctrl-C at the terminal
    /// is for the bench alone, which ends the others in order.
    pub fn command(&self, place: Place, program: &Path) -> Command {
        let mut command = self.placed(place, program);
        command.process_group(0);
        command
    }

    fn placed(&self, place: Place, program: &Path) -> Command {
        let mut words: Vec<String> = Vec::new();
        if self.has_setpriv {
            words.extend(["setpriv", "--pdeathsig", "TERM"].map(str::to_owned));
        }
        if let Some((proxy, load)) = self.cores {
            let core = match place {
                Place::Proxy => proxy,
                Place::Load => load,
            };
            words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        let Some((first, rest)) = words.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// Starts this very binary again in another role (`echo`, `load`).
    pub fn helper(&self, role: &str) -> io::Result<Helper> {
        let mut command = self.command(Place::Load, &std::env::current_exe()?);
        command.args(["--bench", role]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Helper {
            child,
            input,
            lines,
        })
    }
}

/// A child of our own, spoken to in lines.
pub struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Helper {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one order as a line of JSON.
    pub fn send(&mut self, order: &impl Serialize) -> io::Result<()> {
        let input = self.input.as_mut().expect("taken in drop only");
        writeln!(input, "{}", serde_json::to_string(order)?)
    }

    /// Waits for one line of JSON, at most `patience`; meanwhile looks every now and then.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        patience: Duration,
        mut look: impl FnMut(),
    ) -> io::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            stop::check()?;
            match self.lines.recv_timeout(GLANCE) {
                Ok(line) => return Ok(serde_json::from_str(&line)?),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => look(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let problem = format!("no answer from a helper process in {patience:?}");
                    return Err(io::Error::other(problem));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a helper process ended early"));
                }
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of its input is what makes a helper leave.
        drop(self.input.take());
        if !matches!(wait(&mut self.child, Duration::from_secs(2)), Ok(Some(_))) {
            // Both fail only when the child is gone, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// In a helper: its orders, line by line; closed when the bench is gone.
pub fn orders() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Ends a foreign process and all its descendants: asks first, then insists.
pub fn end_tree(child: &mut Child) {
    // Read before the parent goes: orphans would not be found afterwards.
    let tree = measure::tree(child.id());
    signal("TERM", &tree);
    let ended = wait(child, Duration::from_secs(3));
    let left: Vec<u32> = tree
        .into_iter()
        .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .collect();
    if !left.is_empty() {
        signal("KILL", &left);
    }
    if !matches!(ended, Ok(Some(_))) {
        // Fails only when the child was already waited for.
        let _ = child.wait();
    }
}

/// Waits for the end of a child, at most `patience`.
pub fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            status => return Ok(status),
        }
    }
}

/// Where a program is: in `PATH`, or where Debian keeps daemons.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|data| data.is_file()))
}

/// Signals exactly these processes, with the shell's own `kill`.
fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let script = r#"name=$1; shift; kill -"$name" "$@""#;
    // A process that is already gone is no failure.
    let _ = Command::new("sh")
        .args(["-c", script, "sh", name])
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

/// How often a wait looks around.
const GLANCE: Duration = Duration::from_millis(25);
