//! The files that a configuration names, as they were when they were read.
//!
//! To see whether one may have changed costs a system call; whether it has, a reading. What a
//! file holds is kept as a digest, since it may be a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// What was seen of each file.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<PathBuf, Seen>);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    stamp: Option<Stamp>,
    content: Content,
}

/// What changes with a file (stat(2)): device and inode, size, and both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([i128; 4]);

/// The stamps of all files at one time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Digest([u8; 32]),
    Unreadable,
}

impl Files {
    /// Looks at each, and reads it.
    pub(super) fn read(paths: BTreeSet<PathBuf>) -> Self {
        let seen = paths.into_iter().map(|path| {
            // In this order: what is written in between is found at the next look.
            let stamp = Stamp::of(&path);
            let content = Content::of(&path).unwrap_or(Content::Unreadable);
            (path, Seen { stamp, content })
        });
        Self(seen.collect())
    }

    /// The stamps that they had then.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps(self.0.values().map(|seen| seen.stamp).collect())
    }

    /// The stamps that they have now.
    pub(super) fn look(&self) -> Stamps {
        Stamps(self.0.keys().map(|path| Stamp::of(path)).collect())
    }

    /// Those of them that are named later, too, and hold something else then.
    pub(super) fn changed(&self, later: &Self) -> Vec<PathBuf> {
        let changed = self.0.iter().filter(|(path, seen)| {
            let later = later.0.get(*path);
            later.is_some_and(|later| later.content != seen.content)
        });
        changed.map(|(path, _)| path.clone()).collect()
    }

    /// Whether these hold the same then as later, and can be read.
    pub(super) fn are_same(&self, later: &Self, paths: &[PathBuf]) -> bool {
        paths.iter().all(|path| {
            let content = |files: &Self| files.0.get(path).map(|seen| seen.content);
            let before = content(self);
            before != Some(Content::Unreadable) && before.is_some() && before == content(later)
        })
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        // Through links: renewals often exchange one.
        let of = fs::metadata(path).ok()?;
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Some(Self([
            (i128::from(of.dev()) << 64) + i128::from(of.ino()),
            of.len().into(),
            nanos(of.mtime(), of.mtime_nsec()),
            nanos(of.ctime(), of.ctime_nsec()),
        ]))
    }
}

impl Content {
    fn of(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        let digest = digest(&SHA256, &bytes);
        let digest = digest.as_ref().try_into();
        Ok(digest.map_or(Self::Unreadable, Self::Digest))
    }
}

/// Bytes of a file that are looked at: no reader of such a file takes more.
const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::process;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Removed when dropped.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(text: &str) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tidegate-files-{}-{n}", process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).expect("a writable temporary directory");
            Self(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            // One may have been renamed.
            let _removed = fs::remove_file(&self.0);
        }
    }

    fn read(paths: &[&PathBuf]) -> Files {
        Files::read(paths.iter().copied().cloned().collect())
    }

    #[test]
    fn a_file_that_holds_something_else_is_found() {
        let (file, other) = (TempFile::new("a"), TempFile::new("a"));
        let paths = [&file.0, &other.0];
        let before = read(&paths);
        assert_eq!(before.stamps(), before.look());
        fs::write(&file.0, "bb").expect("written");
        assert_ne!(before.stamps(), before.look());
        let after = read(&paths);
        assert_eq!(before.changed(&after), std::slice::from_ref(&file.0));
        assert!(before.are_same(&after, std::slice::from_ref(&other.0)));
        assert!(!before.are_same(&after, &[file.0.clone(), other.0.clone()]));
    }

    #[test]
    fn a_file_that_was_exchanged_for_its_like_is_looked_at_and_found_the_same() {
        let file = TempFile::new("a");
        let before = read(&[&file.0]);
        let copy = TempFile::new("a");
        fs::rename(&copy.0, &file.0).expect("renamed");
        assert_ne!(before.stamps(), before.look());
        assert!(before.changed(&read(&[&file.0])).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_never_the_same() {
        let gone = PathBuf::from("/nowhere/at/all");
        let (before, after) = (read(&[&gone]), read(&[&gone]));
        assert_eq!(before.stamps(), before.look());
        assert!(before.changed(&after).is_empty());
        assert!(!before.are_same(&after, &[gone]));
        assert!(before.are_same(&after, &[]));
    }
}
