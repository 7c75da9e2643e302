//! The file that keeps revocations over a restart: a JSON object on each line.
//!
//! It is read whole and replaced whole: a reader sees the old one or the new one, and so does
//! the next start after a crash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::revocation::entry::{Complete, Defaults, Entry};

/// What tells one content of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    len: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) entries: Vec<Entry>,
    /// Whether every line named its times.
    pub(super) complete: Complete,
    pub(super) stamp: Stamp,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The file system's reason.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The first line that is wrong, from 1, and what is wrong with it.
    #[error("line {0}: {1}")]
    Line(usize, String),
    /// It has too many entries beside those that it lacks: more than so many together.
    #[error(
        "with what was revoked and could not be written, it makes more than {0} entries \
         (`revocation.max_entries`)"
    )]
    Together(usize),
}

/// How the file looks now; `None`: there is none.
pub(super) fn look(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(stamp(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file of at most `max_entries` that have not expired by `now`; those that have are
/// left out. Where a line names no time, that of the file's last change is meant.
pub(super) fn read(path: &Path, max_entries: usize, keep: u64, now: u64) -> Result<Content, Fault> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
    let defaults = Defaults {
        now: modified.map_or(now, |since_1970| since_1970.as_secs().min(now)),
        keep,
    };
    let mut content = Content {
        entries: Vec::new(),
        complete: Complete::Yes,
        stamp: stamp(&metadata),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut bounded = reader.by_ref().take(LONGEST_LINE + 1);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if line.len() as u64 > LONGEST_LINE {
            let what = format!("it is longer than {LONGEST_LINE} bytes");
            return Err(Fault::Line(number, what));
        }
        if text.is_empty() {
            continue;
        }
        let (entry, complete) =
            Entry::parse(text, defaults).map_err(|what| Fault::Line(number, what))?;
        if !entry.is_alive(now) {
            continue;
        }
        if content.entries.len() >= max_entries {
            let what = format!("more than {max_entries} entries (`revocation.max_entries`)");
            return Err(Fault::Line(number, what));
        }
        if complete == Complete::No {
            content.complete = complete;
        }
        content.entries.push(entry);
    }
    Ok(content)
}

/// Puts a file with these entries in place of the one at `path`, with its permissions; a new
/// one is its owner's alone, since it says who was thrown out.
pub(super) fn write(path: &Path, entries: &[Entry]) -> io::Result<Stamp> {
    // Through a link, so that the link stays one.
    let path = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let beside = beside(&path)?;
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // What a crash left there.
        Ok(()) | Err(_) => {}
    }
    let written = write_beside(&path, &beside, entries);
    if written.is_err() {
        // A rest is removed before the next attempt, too.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(path: &Path, beside: &Path, entries: &[Entry]) -> io::Result<Stamp> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(Permissions::from_mode(old.permissions().mode()))?;
    }
    let mut writer = BufWriter::new(file);
    for entry in entries {
        writeln!(writer, "{}", entry.to_json())?;
    }
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let stamp = stamp(&file.metadata()?);
    fs::rename(beside, path)?;
    // The name is in the folder, which is written separately.
    File::open(folder(path))?.sync_all()?;
    Ok(stamp)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}

/// The folder that a file lies in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        inode: metadata.ino(),
        len: metadata.len(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    }
}

/// Bytes of a line: three of the longest names, each byte of them escaped, and times.
const LONGEST_LINE: u64 = 32 * 1024;
