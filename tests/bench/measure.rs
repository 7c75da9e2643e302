//! What the kernel says about processes and about the machine.
//!
//! Owns `/proc`. CPU time is the sum of `/proc/PID/task/TID/schedstat` (time on
//! a core, user and system, in nanoseconds) over the process and its descendants; a thread that
//! ends between two samples takes its time with it. Memory is `Rss` of `smaps_rollup`, which is
//! exact where the counter behind `VmRSS` is approximate. It knows nothing of proxies.

use std::fs;
use std::io;
use std::ops::Sub;

use serde::Serialize;

/// A process tree at one moment, or the difference between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Nanoseconds on a core since each thread began.
    pub cpu_ns: i64,
    /// Resident memory in KiB; pages shared by two of the processes count twice, which the
    /// difference of two samples takes out again.
    pub resident_kib: i64,
}

impl Sample {
    /// Reads `root` and its descendants now. Processes that end meanwhile are left out.
    pub fn of(root: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in tree(root) {
            sum.cpu_ns += cpu_ns(pid)?;
            sum.resident_kib += resident_kib(pid)?;
        }
        Ok(sum)
    }
}

impl Sub for Sample {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            resident_kib: self.resident_kib - before.resident_kib,
        }
    }
}

/// A process and its descendants, parents first.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|of| of.1 == parent).map(|of| of.0));
        next += 1;
    }
    tree
}

/// The cores this process may run on.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let list = field("/proc/self/status", "Cpus_allowed_list:")?;
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.trim().parse(), last.trim().parse());
        let (Ok(first), Ok(last)) = bounds else {
            return Err(io::Error::other(format!("unexpected core list {list:?}")));
        };
        cores.extend::<std::ops::RangeInclusive<usize>>(first..=last);
    }
    Ok(cores)
}

/// How many files this process, and each it starts, may have open (`ulimit -n`).
pub fn open_files() -> io::Result<usize> {
    let limits = field("/proc/self/limits", "Max open files")?;
    let soft = limits.split_whitespace().next().unwrap_or_default();
    Ok(soft.parse().unwrap_or(usize::MAX))
}

/// Processor, kernel and load of this machine, for the report.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// `model name` and number of cores.
    pub processor: String,
    /// Kernel release.
    pub kernel: String,
    /// Load average over one minute when the bench began: above about 0.5 others disturb it.
    pub load: f64,
}

impl Machine {
    /// Reads `/proc`.
    pub fn look() -> io::Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().and_then(|n| n.parse().ok());
        let model = field("/proc/cpuinfo", "model name").unwrap_or_default();
        let model = model.trim_start_matches([':', ' ', '\t']);
        Ok(Self {
            processor: format!("{model}, {} cores", allowed_cores()?.len()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            load: load.unwrap_or(f64::NAN),
        })
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, parentheses included.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn cpu_ns(pid: u32) -> io::Result<i64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let on_core = line.split_whitespace().next().and_then(|n| n.parse().ok());
        sum += on_core.unwrap_or(0_i64);
    }
    match sum {
        0 => Err(io::Error::other(
            "no CPU time in /proc/PID/task/*/schedstat: the kernel lacks CONFIG_SCHED_INFO",
        )),
        sum => Ok(sum),
    }
}

fn resident_kib(pid: u32) -> io::Result<i64> {
    let text = field(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
        .or_else(|_| field(&format!("/proc/{pid}/status"), "VmRSS:"))?;
    let kib = text.split_whitespace().next().and_then(|n| n.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("unexpected memory figure {text:?}")))
}

/// What follows `name` on the line that begins with it.
fn field(file: &str, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|rest| rest.trim().to_owned())
        .ok_or_else(|| io::Error::other(format!("{file} has no line {name:?}")))
}
