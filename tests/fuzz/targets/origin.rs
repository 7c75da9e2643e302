//! Origins and patterns from any text: what is shown is read the same, and what matches a
//! pattern matches it by plain comparison of text too.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::proto::origin::{MissingOrigin, Origin, OriginPattern, OriginSet};

fuzz_target!(|input: (String, String, Vec<u8>)| {
    let (written, sent, raw) = input;
    let origin = Origin::parse(&sent);
    if let Ok(origin) = &origin {
        let shown = origin.to_string();
        assert_eq!(Origin::parse(&shown).as_ref(), Ok(origin));
        assert_eq!(shown, shown.to_ascii_lowercase());
        assert!(!shown.contains(['/', '@', '*', ' ']) || shown.matches('/').count() == 2);
    }
    let Ok(pattern) = OriginPattern::parse(&written) else {
        return;
    };
    if let Ok(origin) = &origin {
        assert_eq!(pattern.matches(origin), naive(&written, &sent, origin));
    }
    let set = OriginSet::new(vec![pattern.clone()], MissingOrigin::Refuse);
    let admitted = origin.as_ref().is_ok_and(|origin| pattern.matches(origin));
    assert_eq!(set.check([sent.as_bytes()]).is_ok(), admitted);
    assert!(set.check([sent.as_bytes(), sent.as_bytes()]).is_err());
    assert!(set.check(std::iter::empty()).is_err());
    // Bytes that are not even text are judged without a panic.
    let _judged = set.check([raw.as_slice()]);
});

/// Whether the origin matches, by its canonical text alone.
fn naive(written: &str, sent: &str, origin: &Origin) -> bool {
    if written == "*" {
        return sent != "null";
    }
    let Some((before, after)) = written.split_once("*.") else {
        return Origin::parse(written).is_ok_and(|exact| exact.to_string() == origin.to_string());
    };
    // The pattern's own canonical form, with the wildcard as a label of its own.
    let Ok(model) = Origin::parse(&format!("{before}x.{after}")) else {
        return false;
    };
    let model = model.to_string();
    let (scheme, rest) = model.split_once("://x.").expect("the label put there");
    origin
        .to_string()
        .strip_prefix(scheme)
        .and_then(|origin| origin.strip_prefix("://"))
        .and_then(|origin| origin.strip_suffix(rest))
        .is_some_and(|labels| {
            labels.len() > 1 && labels.ends_with('.') && !labels.contains(['[', ':'])
        })
}
