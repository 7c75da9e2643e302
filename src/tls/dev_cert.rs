//! A self-signed certificate for trying Tidegate out on one's own machine.
//!
//! It is for loopback names alone and for a short time, and its key never leaves the file it
//! was made in. Files that somebody else put there are never overwritten.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use crate::config::{CertificateFiles, Line};
use crate::tls::acceptor::provider;
use crate::tls::certificates::{self, EXPIRES_SOON, Place};
use crate::tls::x509::{self, DAY};

/// What [`ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Both files were written.
    Created,
    /// Both were there already and are good.
    Existing,
}

/// Names the certificate is for: this machine, and none that another could reach.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Long enough not to be in the way, short enough that a copy left behind is soon worthless.
const VALID: Duration = Duration::from_secs(90 * 86_400);

/// A clock that is a little behind still accepts a new certificate.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Marks a certificate as made here, and so as ours to replace.
const COMMON_NAME: &str = "Tidegate development certificate";

/// Sees to it that `cert` and `key` are a pair that can be served for two weeks or more:
/// makes one if neither file exists, and again when the one made here is close to its end.
///
/// The key file has mode 0600 from its first byte. Missing folders are created.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there are files that are not such a pair and were not
/// made here: they are left alone. Otherwise what the file system says.
pub fn ensure(cert: &Path, key: &Path) -> io::Result<Made> {
    ensure_as_of(cert, key, SystemTime::now())
}

fn ensure_as_of(cert: &Path, key: &Path, now: SystemTime) -> io::Result<Made> {
    match (cert.try_exists()?, key.try_exists()?) {
        (false, false) => create(cert, key, now),
        (true, true) => match judge(cert, key, now) {
            Pair::Good => Ok(Made::Existing),
            Pair::Outlived => create(cert, key, now),
            Pair::Foreign(why) => Err(in_the_way(&why)),
        },
        (true, false) => Err(in_the_way(&format!("{} has no key", cert.display()))),
        (false, true) => Err(in_the_way(&format!("{} has no certificate", key.display()))),
    }
}

/// Two files that exist.
enum Pair {
    Good,
    /// Made here, and at its end.
    Outlived,
    /// Not usable, and not ours to replace.
    Foreign(String),
}

fn judge(cert: &Path, key: &Path, now: SystemTime) -> Pair {
    let files = CertificateFiles {
        cert: cert.to_owned(),
        key: key.to_owned(),
        line: Line(0),
    };
    let place = Place {
        key: String::new(),
        line: files.line,
    };
    let mut problems = Vec::new();
    let Some(identity) = certificates::load(&files, &place, &provider(), now, &mut problems) else {
        // The last problem is the one that ended the loading.
        return Pair::Foreign(problems.pop().map_or_else(String::new, |p| p.found));
    };
    let not_after = identity.facts.not_after;
    if seconds(now) + EXPIRES_SOON * DAY <= not_after {
        return Pair::Good;
    }
    let is_ours = identity.certified.cert.first().is_some_and(|leaf| {
        leaf.windows(COMMON_NAME.len())
            .any(|part| part == COMMON_NAME.as_bytes())
    });
    if is_ours {
        return Pair::Outlived;
    }
    let until = x509::date(not_after);
    Pair::Foreign(format!("{} is valid until {until} only", cert.display()))
}

fn create(cert: &Path, key: &Path, now: SystemTime) -> io::Result<Made> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
    let certificate = params(now)
        .and_then(|params| params.self_signed(&pair))
        .map_err(io::Error::other)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(cert, &certificate.pem(), 0o644)?;
    Ok(Made::Created)
}

fn params(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, COMMON_NAME);
    params.distinguished_name = name;
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - BACKDATED;
    params.not_after = now + VALID;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Writes beside `path` and renames, so that nobody ever sees half a file, and the mode is
/// right before the first byte is there.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = beside(path);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to tell; if the file is not there, nothing is left over.
        let _removed_or_absent = fs::remove_file(&beside);
    }
    written
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{}.new", process::id()));
    PathBuf::from(name)
}

fn in_the_way(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{why}; it was not made here and is left alone: remove it, or name other files"),
    )
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::test_pki::{self, Folder};

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn a_pair_is_created_in_a_new_folder_with_a_private_key_file() {
        let folder = Folder::new();
        let (cert, key) = (folder.path("certs/a.pem"), folder.path("certs/a.key"));
        assert_eq!(ensure(&cert, &key).expect("created"), Made::Created);
        assert_eq!(mode(&key), 0o600);
        assert!(matches!(judge(&cert, &key, SystemTime::now()), Pair::Good));
        let left: Vec<_> = fs::read_dir(folder.path("certs"))
            .expect("a folder")
            .collect();
        assert_eq!(left.len(), 2);
    }

    #[test]
    fn a_good_pair_is_left_untouched() {
        let folder = Folder::new();
        let (cert, key) = (folder.path("a.pem"), folder.path("a.key"));
        ensure(&cert, &key).expect("created");
        let before = (fs::read(&cert).expect("cert"), fs::read(&key).expect("key"));
        assert_eq!(ensure(&cert, &key).expect("kept"), Made::Existing);
        let after = (fs::read(&cert).expect("cert"), fs::read(&key).expect("key"));
        assert_eq!(before, after);
    }

    #[test]
    fn our_own_pair_is_made_again_two_weeks_before_its_end() {
        let folder = Folder::new();
        let (cert, key) = (folder.path("a.pem"), folder.path("a.key"));
        ensure(&cert, &key).expect("created");
        let soon = Duration::from_secs(86_400) * 14;
        let still = SystemTime::now() + VALID - soon - Duration::from_secs(60);
        let late = SystemTime::now() + VALID - soon + Duration::from_secs(60);
        assert_eq!(
            ensure_as_of(&cert, &key, still).expect("kept"),
            Made::Existing
        );
        assert_eq!(
            ensure_as_of(&cert, &key, late).expect("made"),
            Made::Created
        );
        assert_eq!(
            ensure_as_of(&cert, &key, late).expect("kept"),
            Made::Existing
        );
        assert_eq!(mode(&key), 0o600);
    }

    #[test]
    fn files_that_were_not_made_here_are_never_overwritten() {
        let folder = Folder::new();
        let (cert, key) = (folder.path("a.pem"), folder.path("a.key"));
        let expired = test_pki::made(&["localhost"], -10, -1);
        let valid = test_pki::made(&["localhost"], -10, 100);
        let cases = [
            (
                Some(expired.certificate.pem()),
                Some(expired.key.serialize_pem()),
            ),
            (
                Some(valid.certificate.pem()),
                Some(expired.key.serialize_pem()),
            ),
            (Some(valid.certificate.pem()), Some("not a key".to_owned())),
            (Some(valid.certificate.pem()), None),
            (None, Some(valid.key.serialize_pem())),
        ];
        for (i, texts) in cases.into_iter().enumerate() {
            for (path, text) in [(&cert, &texts.0), (&key, &texts.1)] {
                match text {
                    Some(text) => fs::write(path, text).expect("written"),
                    None => fs::remove_file(path).unwrap_or_default(),
                }
            }
            let error = ensure(&cert, &key).expect_err("refused");
            assert_eq!(
                error.kind(),
                io::ErrorKind::AlreadyExists,
                "case {i}: {error}"
            );
            assert_eq!(fs::read_to_string(&cert).ok(), texts.0, "case {i}");
            assert_eq!(fs::read_to_string(&key).ok(), texts.1, "case {i}");
        }
    }

    #[test]
    fn a_valid_pair_from_elsewhere_is_used_as_it_is() {
        let folder = Folder::new();
        let (cert, key) = (folder.path("a.pem"), folder.path("a.key"));
        let valid = test_pki::made(&["localhost"], -10, 100);
        fs::write(&cert, valid.certificate.pem()).expect("written");
        fs::write(&key, valid.key.serialize_pem()).expect("written");
        assert_eq!(ensure(&cert, &key).expect("kept"), Made::Existing);
    }
}
