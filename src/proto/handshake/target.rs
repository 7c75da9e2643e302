//! The request target: origin-form only, in a shape that two parsers cannot read
//! differently (RFC 9112 §3.2.1, RFC 3986 §3.3).
//!
//! Routes are chosen by the path as written, and an upstream normalizes as it likes. So
//! every spelling that a common server maps to a different path is refused here; what
//! passes means the same to the route table and to the upstream.

/// Longest target in bytes: path and query.
pub(super) const MAX_TARGET: usize = 8 * 1024;

/// What is wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// Longer than 8 KiB.
    TooLong,
    /// Absolute-form, authority-form or asterisk-form: only `/path?query` names a route.
    NotOriginForm,
    /// A blank, a control character, a byte outside ASCII, or `#`: none of them may stand
    /// in a target unencoded (RFC 3986 §2), and each is cut or decoded differently.
    Character,
    /// `\`, `%5c`, `%2f`: separators to some servers, ordinary characters to others.
    Separator,
    /// A `%` without two hexadecimal digits in the path.
    PercentEncoding,
    /// An encoded control character in the path: `%00` cuts it short, `%0d%0a` splits lines.
    EncodedControl,
    /// An encoded letter, digit, `-`, `.`, `_` or `~`: the same path in another spelling
    /// (RFC 3986 §6.2.2.2), which would slip past the route written for the plain one.
    NeedlessEncoding,
    /// `.` or `..`, also with a parameter (`..;x`), which some servers strip first.
    DotSegment,
    /// `//`: merged by some servers, kept by others.
    EmptySegment,
}

/// Checks a target and says how long its path is.
///
/// The rules on separators, encodings and segments hold for the path. A query is opaque:
/// only its characters are checked, since `?next=%2Fhome` is ordinary there.
pub(super) fn check(target: &str) -> Result<usize, TargetFault> {
    if target.len() > MAX_TARGET {
        return Err(TargetFault::TooLong);
    }
    if !target.starts_with('/') {
        return Err(TargetFault::NotOriginForm);
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(TargetFault::Character);
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    check_encoding(path.as_bytes())?;
    check_segments(path)?;
    Ok(path.len())
}

fn check_encoding(path: &[u8]) -> Result<(), TargetFault> {
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'\\' {
            return Err(TargetFault::Separator);
        }
        if byte == b'%' {
            let (encoded, tail) = tail
                .split_at_checked(2)
                .ok_or(TargetFault::PercentEncoding)?;
            check_encoded(decode_hex(encoded).ok_or(TargetFault::PercentEncoding)?)?;
            rest = tail;
        }
    }
    Ok(())
}

fn check_encoded(byte: u8) -> Result<(), TargetFault> {
    match byte {
        b'/' | b'\\' => Err(TargetFault::Separator),
        b'-' | b'.' | b'_' | b'~' => Err(TargetFault::NeedlessEncoding),
        b if b.is_ascii_alphanumeric() => Err(TargetFault::NeedlessEncoding),
        b if b.is_ascii_control() => Err(TargetFault::EncodedControl),
        _ => Ok(()),
    }
}

fn decode_hex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |sum, digit| {
        let value = char::from(*digit).to_digit(16)?;
        u8::try_from(u32::from(sum) * 16 + value).ok()
    })
}

fn check_segments(path: &str) -> Result<(), TargetFault> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let name = segment
            .split_once(';')
            .map_or(segment, |(before, _)| before);
        if name == "." || name == ".." {
            return Err(TargetFault::DotSegment);
        }
        if segment.is_empty() && segments.peek().is_some() {
            return Err(TargetFault::EmptySegment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_targets_pass_and_know_their_path() {
        let cases = [
            ("/", 1),
            ("/chat", 5),
            ("/chat/", 6),
            ("/chat?token=a%2Fb/../c//d", 5),
            ("/chat?", 5),
            ("/chat??", 5),
            ("/a%20b/%C3%A4", 13),
            ("/room/%40alice:x;v=1", 20),
            ("/.well-known/...", 16),
            ("/a|[b]{c}", 9),
        ];
        for (target, path) in cases {
            assert_eq!(check(target), Ok(path), "{target}");
        }
    }

    #[test]
    fn a_target_that_reads_two_ways_is_refused() {
        use TargetFault::*;
        let cases = [
            ("", NotOriginForm),
            ("*", NotOriginForm),
            ("chat", NotOriginForm),
            ("http://example.com/chat", NotOriginForm),
            ("example.com:443", NotOriginForm),
            ("/chat#top", Character),
            ("/chat?a#b", Character),
            ("/a b", Character),
            ("/a\tb", Character),
            ("/a\r\nb", Character),
            ("/a\u{7f}", Character),
            ("/ä", Character),
            ("/?ä", Character),
            ("/a\\b", Separator),
            ("/a%2fb", Separator),
            ("/a%2Fb", Separator),
            ("/a%5cb", Separator),
            ("/a%5Cb", Separator),
            ("/a%", PercentEncoding),
            ("/a%4", PercentEncoding),
            ("/a%+1", PercentEncoding),
            ("/a%zz", PercentEncoding),
            ("/a%00", EncodedControl),
            ("/a%0d%0a", EncodedControl),
            ("/a%7F", EncodedControl),
            ("/%2e%2e/x", NeedlessEncoding),
            ("/%2E", NeedlessEncoding),
            ("/.%2e/x", NeedlessEncoding),
            ("/%63hat", NeedlessEncoding),
            ("/.", DotSegment),
            ("/..", DotSegment),
            ("/a/./b", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/..;x/b", DotSegment),
            ("/a/..;/b", DotSegment),
            ("/a/..?q", DotSegment),
            ("//", EmptySegment),
            ("//example.com/chat", EmptySegment),
            ("/a//b", EmptySegment),
        ];
        for (target, fault) in cases {
            assert_eq!(check(target), Err(fault), "{target:?}");
        }
    }

    #[test]
    fn one_byte_over_the_longest_target_is_refused() {
        let longest = format!("/{}", "a".repeat(MAX_TARGET - 1));
        assert_eq!(check(&longest), Ok(MAX_TARGET));
        assert_eq!(check(&format!("{longest}a")), Err(TargetFault::TooLong));
    }
}
