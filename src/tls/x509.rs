//! The few facts we need from a certificate: when it is valid, and for which names.
//!
//! Reads only certificates that the operator configured, never a peer's. Checks no
//! signature; that the whole is well-formed is checked by rustls before. RFC 5280 §4.1
//! and §4.2.1.6. A parser crate would do, but brings a dozen others into the tree for
//! these three fields.

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// First second of validity, since 1970-01-01 00:00:00 UTC.
    pub(super) not_before: i64,
    /// Last second of validity.
    pub(super) not_after: i64,
    /// The DNS names among the subject's alternative names, as written.
    pub(super) dns_names: Vec<String>,
}

/// Reads a DER certificate; `None` if it is not one.
pub(super) fn facts(der: &[u8]) -> Option<Facts> {
    let mut certificate = Der(Der(der).take(SEQUENCE)?);
    let mut tbs = Der(certificate.take(SEQUENCE)?);
    tbs.take_if(VERSION);
    tbs.take(INTEGER)?; // serialNumber
    tbs.take(SEQUENCE)?; // signature
    tbs.take(SEQUENCE)?; // issuer
    let mut validity = Der(tbs.take(SEQUENCE)?);
    let not_before = time(&mut validity)?;
    let not_after = time(&mut validity)?;
    tbs.take(SEQUENCE)?; // subject
    tbs.take(SEQUENCE)?; // subjectPublicKeyInfo
    tbs.take_if(ISSUER_UNIQUE_ID);
    tbs.take_if(SUBJECT_UNIQUE_ID);
    let dns_names = match tbs.take_if(EXTENSIONS) {
        Some(extensions) => alternative_names(extensions)?,
        None => Vec::new(),
    };
    Some(Facts {
        not_before,
        not_after,
        dns_names,
    })
}

/// The day of a time, `2026-11-22`.
pub(super) fn date(seconds: i64) -> String {
    // The inverse of `days`, after Howard Hinnant's "chrono-compatible low-level date
    // algorithms": years begin in March, so that the leap day is the last.
    let z = seconds.div_euclid(DAY) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// DNS names in the subjectAltName extension, if there is one.
fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Der(Der(extensions).take(SEQUENCE)?);
    while let Some(extension) = extensions.take_if(SEQUENCE) {
        let mut extension = Der(extension);
        let id = extension.take(OBJECT_IDENTIFIER)?;
        extension.take_if(BOOLEAN); // critical
        let value = extension.take(OCTET_STRING)?;
        if id == SUBJECT_ALT_NAME {
            return dns_names(Der(value).take(SEQUENCE)?);
        }
    }
    Some(Vec::new())
}

fn dns_names(general_names: &[u8]) -> Option<Vec<String>> {
    let mut rest = Der(general_names);
    let mut names = Vec::new();
    while let Some((tag, value)) = rest.next() {
        if tag == DNS_NAME {
            names.push(std::str::from_utf8(value).ok()?.to_owned());
        }
    }
    Some(names)
}

/// One `Time` (RFC 5280 §4.1.2.5): always with seconds, always UTC.
fn time(validity: &mut Der<'_>) -> Option<i64> {
    let (tag, text) = validity.next()?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = number::<2>(text)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => number::<4>(text)?,
        _ => return None,
    };
    let (month, rest) = number::<2>(rest)?;
    let (day, rest) = number::<2>(rest)?;
    let (hour, rest) = number::<2>(rest)?;
    let (minute, rest) = number::<2>(rest)?;
    let (second, rest) = number::<2>(rest)?;
    let is_valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && rest == b"Z";
    is_valid.then(|| days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

/// Reads `N` decimal digits.
fn number<const N: usize>(text: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, rest) = text.split_at_checked(N)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some((value, rest))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, same source as [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A reader of DER: tag, length, value (X.690 §8, §10.1).
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// The next value, whose tag must be this one.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, value) = self.next()?;
        (found == tag).then_some(value)
    }

    /// The next value if its tag is this one; otherwise nothing is taken.
    fn take_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() != Some(&tag) {
            return None;
        }
        self.take(tag)
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = bytes
                    .iter()
                    .fold(0, |len, &byte| len << 8 | usize::from(byte));
                (len, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }
}

const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`.
const VERSION: u8 = 0xa0;
/// `[1] IMPLICIT`.
const ISSUER_UNIQUE_ID: u8 = 0x81;
/// `[2] IMPLICIT`.
const SUBJECT_UNIQUE_ID: u8 = 0x82;
/// `[3] EXPLICIT`.
const EXTENSIONS: u8 = 0xa3;
/// `dNSName [2]` of a GeneralName.
const DNS_NAME: u8 = 0x82;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_pki;

    #[test]
    fn names_and_validity_are_read() {
        let pair = test_pki::made(&["a.example.com", "*.example.org", "127.0.0.1"], -3, 40);
        let facts = facts(pair.certificate.der()).expect("a certificate");
        assert_eq!(facts.dns_names, ["a.example.com", "*.example.org"]);
        let days = (facts.not_after - facts.not_before) / DAY;
        assert_eq!(days, 43);
    }

    #[test]
    fn a_certificate_without_alternative_names_has_none() {
        let pair = test_pki::made(&[], -1, 1);
        let facts = facts(pair.certificate.der()).expect("a certificate");
        assert!(facts.dns_names.is_empty());
    }

    #[test]
    fn years_after_2049_are_read() {
        let pair = test_pki::made(&["x"], -1, 30_000);
        let facts = facts(pair.certificate.der()).expect("a certificate");
        assert!(date(facts.not_after).starts_with("21"));
    }

    #[test]
    fn no_prefix_of_a_certificate_is_one_and_none_panics() {
        let pair = test_pki::made(&["a.example.com"], -1, 1);
        let der = pair.certificate.der();
        assert!(der.len() > 100);
        for cut in 0..der.len() {
            assert_eq!(facts(&der[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn any_damaged_byte_is_read_without_a_panic() {
        let pair = test_pki::made(&["a.example.com"], -1, 1);
        let der = pair.certificate.der().to_vec();
        let mut refused = 0;
        for at in 0..der.len() {
            for value in [0x00, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = der.clone();
                damaged[at] = value;
                refused += usize::from(facts(&damaged).is_none());
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (4_102_444_800, "2100-01-01"),
            (4_107_542_400, "2100-03-01"),
            (-DAY, "1969-12-31"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date(seconds), text);
            let part = |range: std::ops::Range<usize>| text[range].parse().expect("a number");
            assert_eq!(days(part(0..4), part(5..7), part(8..10)) * DAY, seconds);
        }
    }

    #[test]
    fn impossible_times_are_refused() {
        let cases: [&[u8]; 6] = [
            b"261322000000Z",
            b"260022000000Z",
            b"261132000000Z",
            b"2611220000Z",
            b"261122000000+0100",
            b"26112x000000Z",
        ];
        for text in cases {
            let mut der = vec![UTC_TIME, text.len() as u8];
            der.extend_from_slice(text);
            assert_eq!(time(&mut Der(&der)), None);
        }
    }
}
