//! The file: over a restart, edited by hand, broken, gone, and not to be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::Line;
use crate::revocation::Marks;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-revoked-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("revoked.jsonl")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("a file")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }

    /// While there is a folder of that name, no file can be written beside the one that is.
    fn in_the_way(&self) -> PathBuf {
        self.0.join(".revoked.jsonl.new")
    }

    fn load(&self) -> Result<(Keeper, Vec<Problem>), Vec<Problem>> {
        self.load_with(self.path(), 3)
    }

    fn load_with(
        &self,
        path: PathBuf,
        max_entries: usize,
    ) -> Result<(Keeper, Vec<Problem>), Vec<Problem>> {
        let config = Revocation {
            file: Some(path),
            max_entries,
            keep: Duration::from_secs(1000),
            line: Line(7),
        };
        let routes = [("chat", Tokens::Asked), ("open", Tokens::None)];
        let routes = routes.map(|(name, tokens)| (name.to_owned(), tokens));
        Keeper::load(&config, routes.to_vec(), now())
    }

    fn started(&self) -> Keeper {
        let (keeper, warnings) = self.load().expect("it loads");
        assert_eq!(warnings, []);
        keeper.begin(now()).expect("it can be written");
        keeper
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind in the temporary directory harms no other test.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn refuses(keeper: &Keeper, sub: &str) -> bool {
    let marks = Marks::new("chat", None, Some(sub), None, Some(1), u64::MAX);
    keeper.store.refuses(&marks, seconds(now()))
}

fn look_at(keeper: &Keeper, now: u64) {
    let file = keeper.file.as_ref().expect("a file");
    keeper.look_after(&mut file.lock().expect("no panic"), now);
}

fn look(keeper: &Keeper) {
    look_at(keeper, seconds(now()));
}

/// As many looks as it takes for a change to count.
fn look_twice(keeper: &Keeper) {
    look(keeper);
    look(keeper);
}

fn told(keeper: &Keeper) -> Option<String> {
    let file = keeper.file.as_ref().expect("a file");
    file.lock().expect("no panic").told.clone()
}

fn revoke(keeper: &Keeper, text: &str) {
    let outcome = keeper.revoke(text.as_bytes(), now());
    assert!(matches!(outcome, Outcome::Revoked(_)), "{outcome:?}");
}

/// Revokes where that cannot be written.
fn revoke_unwritten(keeper: &Keeper, text: &str) {
    let outcome = keeper.revoke(text.as_bytes(), now());
    assert!(matches!(outcome, Outcome::Unwritten(..)), "{outcome:?}");
}

#[test]
fn what_is_revoked_stays_so_over_a_restart() {
    let folder = Folder::new();
    let keeper = folder.started();
    assert_eq!(folder.text(), "", "it is there from the start");
    let changes = keeper.changes();
    revoke(&keeper, r#"{"sub":"alice"}"#);
    assert!(changes.has_changed().expect("the keeper is there"));
    let text = folder.text();
    let soon = seconds(now()) + 1;
    revoke(
        &keeper,
        &format!(r#"{{"sub":"alice","before":1,"exp":{soon}}}"#),
    );
    assert_eq!(folder.text(), text, "nothing new");
    drop(keeper);
    let again = folder.started();
    assert!(refuses(&again, "alice"));
    assert!(!refuses(&again, "bob"));
    assert_eq!(folder.text(), text);
    assert_eq!(folder.names(), ["revoked.jsonl"]);
    let mode = fs::metadata(folder.path()).expect("a file").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn times_that_were_left_out_are_written_down_at_the_start_and_so_stay() {
    let folder = Folder::new();
    let line = "{\"sub\":\"alice\"}\n";
    fs::write(folder.path(), line).expect("written");
    let written_at = now() - Duration::from_secs(100);
    let file = fs::File::options().write(true).open(folder.path());
    let file = file.expect("a file");
    file.set_modified(written_at).expect("set");
    drop(folder.load().expect("it loads"));
    assert_eq!(folder.text(), line, "nothing has begun");
    drop(folder.started());
    let (before, exp) = (seconds(written_at), seconds(written_at) + 1000);
    let text = folder.text();
    let whole = format!("{{\"before\":{before},\"exp\":{exp},\"sub\":\"alice\"}}\n");
    assert_eq!(text, whole);
    // Another line later is not about her.
    fs::write(folder.path(), format!("{text}{{\"sub\":\"bob\"}}\n")).expect("written");
    let keeper = folder.started();
    assert!(refuses(&keeper, "alice") && refuses(&keeper, "bob"));
    let newer = Marks::new(
        "chat",
        None,
        Some("alice"),
        None,
        Some(before + 1),
        u64::MAX,
    );
    assert!(!keeper.store.refuses(&newer, seconds(now())));
}

#[test]
fn times_that_cannot_be_written_down_are_no_reason_not_to_start() {
    let folder = Folder::new();
    fs::write(folder.path(), "{\"sub\":\"alice\"}\n").expect("written");
    fs::create_dir(folder.in_the_way()).expect("a folder");
    let keeper = folder.started();
    assert!(refuses(&keeper, "alice"));
    let what = told(&keeper).expect("a warning");
    assert!(what.starts_with("it cannot be written"), "{what}");
    fs::remove_dir(folder.in_the_way()).expect("removed");
    look_at(&keeper, seconds(now()) + RETRY_AFTER);
    assert!(folder.text().contains("before"), "{}", folder.text());
    assert_eq!(told(&keeper), None);
}

#[test]
fn what_has_expired_is_not_written_again() {
    let folder = Folder::new();
    let old = r#"{"jti":"j","exp":5}"#;
    fs::write(folder.path(), format!("{old}\n\n")).expect("written");
    let keeper = folder.started();
    assert_eq!(keeper.store.len(seconds(now())), 0);
    revoke(&keeper, r#"{"sub":"alice"}"#);
    assert!(!folder.text().contains("\"j\""), "{}", folder.text());
}

#[test]
fn a_wrong_file_is_refused_at_the_start_with_its_line() {
    let folder = Folder::new();
    let good = r#"{"sub":"a","exp":253402300799}"#;
    let fourth = good.replace("\"a\"", "\"d\"");
    let many = [good, good, good, &fourth].join("\n");
    let long = format!("{good}\n{{\"sub\":\"{}\"}}", "x".repeat(40_000));
    for (text, why) in [
        (
            format!("{good}\n{{\"sub\":7}}\n"),
            "line 2: `sub` is not a text",
        ),
        (
            format!("\n\n{good}\nalice"),
            "line 4: it is not a JSON object",
        ),
        (
            many,
            "line 4: more than 3 entries (`revocation.max_entries`)",
        ),
        (long, "line 2: it is longer than 32768 bytes"),
        ("# people\n".to_owned(), "line 1: it is not a JSON object"),
    ] {
        fs::write(folder.path(), &text).expect("written");
        let problems = folder.load().expect_err(why);
        let [problem] = &problems[..] else {
            panic!("{problems:?}");
        };
        assert!(problem.is_error());
        assert_eq!(
            (problem.line, &*problem.key),
            (Some(Line(7)), "revocation.file")
        );
        assert!(problem.found.contains(why), "{}", problem.found);
    }
    let path = folder.0.join("no-folder/revoked.jsonl");
    let problems = folder.load_with(path, 3).expect_err("no folder");
    assert!(problems[0].found.contains("cannot be read"), "{problems:?}");
    let (keeper, _) = folder
        .load_with(folder.0.join("new.jsonl"), 3)
        .expect("it is not there yet");
    fs::set_permissions(&folder.0, Permissions::from_mode(0o500)).expect("set");
    let begun = keeper.begin(now());
    let is_root = fs::write(folder.0.join("probe"), "").is_ok();
    fs::set_permissions(&folder.0, Permissions::from_mode(0o700)).expect("set");
    assert!(is_root || begun.is_err());
}

#[test]
fn a_route_that_is_not_there_makes_a_warning() {
    let folder = Folder::new();
    let line = r#"{"sub":"a","route":"gone","before":1,"exp":253402300799}"#;
    fs::write(folder.path(), line).expect("written");
    let (_, warnings) = folder.load().expect("it loads");
    assert!(!warnings[0].is_error());
    assert!(
        warnings[0]
            .found
            .ends_with("names the route `gone`, which there is not")
    );
}

#[test]
fn a_file_edited_by_hand_counts_when_it_has_rested() {
    let folder = Folder::new();
    let keeper = folder.started();
    let mut changes = keeper.changes();
    changes.mark_unchanged();
    fs::write(folder.path(), "{\"sub\":\"alice\"}\n").expect("written");
    look(&keeper);
    assert!(!refuses(&keeper, "alice"), "somebody may still be writing");
    look(&keeper);
    assert!(refuses(&keeper, "alice"));
    assert!(changes.has_changed().expect("the keeper is there"));
    // The times that were meant are written down, and so stay.
    look(&keeper);
    let written = folder.text();
    assert!(
        written.contains("\"before\":") && written.contains("\"exp\":"),
        "{written}"
    );
    look_twice(&keeper);
    assert_eq!(folder.text(), written);
    // A line taken out is taken back.
    fs::write(folder.path(), "").expect("written");
    look_twice(&keeper);
    assert!(!refuses(&keeper, "alice"));
}

#[test]
fn a_file_that_keeps_changing_counts_all_the_same() {
    let folder = Folder::new();
    let keeper = folder.started();
    let mut text = "{\"sub\":\"alice\"}\n".to_owned();
    for looks in 1..=2 * MOST_LOOKS {
        text.push('\n');
        fs::write(folder.path(), &text).expect("written");
        look(&keeper);
        assert_eq!(refuses(&keeper, "alice"), looks >= MOST_LOOKS, "{looks}");
        assert_eq!(folder.text(), text, "somebody may still be writing");
    }
    look(&keeper);
    assert!(folder.text().contains("before"), "{}", folder.text());
}

#[test]
fn a_file_that_breaks_while_running_changes_nothing_until_it_is_mended() {
    let folder = Folder::new();
    let keeper = folder.started();
    revoke(&keeper, r#"{"sub":"alice"}"#);
    let good = folder.text();
    fs::write(folder.path(), format!("{good}oops\n")).expect("written");
    look_twice(&keeper);
    assert!(refuses(&keeper, "alice"));
    let what = told(&keeper).expect("a warning");
    assert!(
        what.starts_with("line 2: it is not a JSON object"),
        "{what}"
    );
    // What is revoked meanwhile holds, and the hand's work is not written over.
    let outcome = keeper.revoke(br#"{"sub":"bob"}"#, now());
    let Outcome::Unwritten(_, why) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(why.starts_with("line 2"), "{why}");
    assert!(refuses(&keeper, "bob"));
    assert!(folder.text().ends_with("oops\n"));
    fs::write(folder.path(), &good).expect("written");
    look_twice(&keeper);
    look_twice(&keeper);
    assert!(refuses(&keeper, "alice") && refuses(&keeper, "bob"));
    assert_eq!(told(&keeper), None);
    look_at(&keeper, seconds(now()) + RETRY_AFTER);
    assert!(folder.text().contains("bob"), "{}", folder.text());
}

#[test]
fn a_file_and_what_it_lacks_are_not_taken_together_where_they_are_too_many() {
    let folder = Folder::new();
    let keeper = folder.started();
    revoke(&keeper, r#"{"sub":"a"}"#);
    let [a, b, c] = ["a", "b", "c"].map(|sub| format!("{{\"sub\":\"{sub}\",\"before\":1}}\n"));
    fs::create_dir(folder.in_the_way()).expect("a folder");
    revoke_unwritten(&keeper, r#"{"sub":"d"}"#);
    fs::remove_dir(folder.in_the_way()).expect("removed");
    let many = [&*a, &b, &c].concat();
    fs::write(folder.path(), &many).expect("written");
    look_twice(&keeper);
    assert_eq!(
        told(&keeper).as_deref(),
        Some(
            "with what was revoked and could not be written, it makes more than 3 entries \
             (`revocation.max_entries`); what was revoked before stays so"
        )
    );
    look_at(&keeper, seconds(now()) + RETRY_AFTER);
    assert_eq!(folder.text(), many, "it is not written over");
    assert!(refuses(&keeper, "a") && refuses(&keeper, "d"));
    assert!(!refuses(&keeper, "b"));
    // With a line less there is room for all, now and after a restart.
    fs::write(folder.path(), [&*a, &b].concat()).expect("written");
    look_twice(&keeper);
    look_at(&keeper, seconds(now()) + RETRY_AFTER);
    drop(keeper);
    let again = folder.started();
    assert!(["a", "b", "d"].iter().all(|sub| refuses(&again, sub)));
}

#[test]
fn a_revocation_finds_what_a_hand_has_just_written() {
    let folder = Folder::new();
    let keeper = folder.started();
    fs::write(folder.path(), "{\"sub\":\"alice\"}\n").expect("written");
    revoke(&keeper, r#"{"sub":"bob"}"#);
    assert!(refuses(&keeper, "alice") && refuses(&keeper, "bob"));
    let text = folder.text();
    assert!(text.contains("alice") && text.contains("bob"), "{text}");
}

#[test]
fn a_file_that_goes_takes_nothing_back() {
    let folder = Folder::new();
    let keeper = folder.started();
    revoke(&keeper, r#"{"sub":"alice"}"#);
    fs::remove_file(folder.path()).expect("removed");
    look_twice(&keeper);
    assert!(refuses(&keeper, "alice"));
    assert!(told(&keeper).expect("a warning").starts_with("it is gone"));
    revoke(&keeper, r#"{"sub":"bob"}"#);
    let text = folder.text();
    assert!(text.contains("alice") && text.contains("bob"), "{text}");
}

#[test]
fn a_file_that_goes_before_all_is_in_it_is_written_anew() {
    let folder = Folder::new();
    let keeper = folder.started();
    fs::create_dir(folder.in_the_way()).expect("a folder");
    revoke_unwritten(&keeper, r#"{"sub":"alice"}"#);
    fs::remove_file(folder.path()).expect("removed");
    let later = seconds(now()) + RETRY_AFTER;
    look_at(&keeper, later);
    let what = told(&keeper).expect("a warning");
    assert!(what.starts_with("it cannot be written"), "{what}");
    fs::remove_dir(folder.in_the_way()).expect("removed");
    look_at(&keeper, later);
    assert!(!folder.path().exists(), "it was tried a moment ago");
    look_at(&keeper, later + RETRY_AFTER);
    assert!(folder.text().contains("alice"), "{}", folder.text());
    assert_eq!(told(&keeper), None);
}

#[test]
fn a_link_to_the_file_stays_a_link_and_its_permissions_stay() {
    let folder = Folder::new();
    let real = folder.0.join("real.jsonl");
    fs::write(&real, "").expect("written");
    fs::set_permissions(&real, Permissions::from_mode(0o640)).expect("set");
    std::os::unix::fs::symlink(&real, folder.path()).expect("linked");
    let keeper = folder.started();
    revoke(&keeper, r#"{"sub":"alice"}"#);
    assert!(
        fs::symlink_metadata(folder.path())
            .expect("it")
            .is_symlink()
    );
    let mode = fs::metadata(&real).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(folder.text().contains("alice"));
}

#[test]
fn a_rest_of_a_crash_is_in_nobodys_way() {
    let folder = Folder::new();
    fs::write(folder.0.join(".revoked.jsonl.new"), "{\"sub\":").expect("written");
    let keeper = folder.started();
    revoke(&keeper, r#"{"sub":"alice"}"#);
    assert_eq!(folder.names(), ["revoked.jsonl"]);
}

#[test]
fn only_what_can_be_meant_is_revoked() {
    let folder = Folder::new();
    let keeper = folder.started();
    let passed = format!(r#"{{"sub":"a","exp":{}}}"#, seconds(now()) - 300);
    for (text, why) in [
        (r#"{"route":"chta"}"#, "there is no route `chta`"),
        (r#"{"sub":"a","route":"chta"}"#, "there is no route `chta`"),
        (r#"{"route":"open"}"#, "the route `open` asks for no token"),
        ("{}", "none of `jti`, `sub` and `route`"),
        (
            &passed,
            "`exp` has passed by 5 minutes or more: such an entry revokes nobody (it is in \
             seconds since 1970)",
        ),
    ] {
        match keeper.revoke(text.as_bytes(), now()) {
            Outcome::Malformed(what) => assert_eq!(what, why),
            other => panic!("{text}: {other:?}"),
        }
    }
    // Where clocks differ, a token may still be taken that has expired.
    let just = seconds(now()) - 290;
    revoke(&keeper, &format!(r#"{{"sub":"a","exp":{just}}}"#));
    for sub in ["a", "b", "c"] {
        revoke(&keeper, &format!(r#"{{"sub":"{sub}"}}"#));
    }
    let outcome = keeper.revoke(br#"{"sub":"d"}"#, now());
    assert!(matches!(outcome, Outcome::Full(_)), "{outcome:?}");
    revoke(&keeper, r#"{"sub":"c"}"#);
    assert_eq!(folder.text().lines().count(), 3);
}

#[test]
fn routes_change_and_what_is_revoked_stays() {
    let (keeper, _) = Keeper::load(
        &Revocation {
            file: None,
            max_entries: 10,
            keep: Duration::from_secs(1000),
            line: Line(1),
        },
        vec![("chat".to_owned(), Tokens::Asked)],
        now(),
    )
    .expect("no file");
    let revoke = |text: &str| keeper.revoke(text.as_bytes(), now());
    assert!(matches!(revoke(r#"{"route":"chat"}"#), Outcome::Revoked(_)));
    assert!(matches!(
        revoke(r#"{"route":"feed"}"#),
        Outcome::Malformed(_)
    ));
    keeper.set_routes(vec![("feed".to_owned(), Tokens::Asked)]);
    assert!(matches!(revoke(r#"{"route":"feed"}"#), Outcome::Revoked(_)));
    assert!(matches!(
        revoke(r#"{"route":"chat"}"#),
        Outcome::Malformed(_)
    ));
    assert!(refuses(&keeper, "alice"), "a token of `chat`");
}
