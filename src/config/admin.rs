//! `[admin]` and `[revocation]`: what operators ask a running process, and the tokens that
//! count no longer.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::secret;
use crate::config::value::{count, duration, in_memory, path};
use crate::config::{Admin, AdminToken, Revocation};

/// Default of `admin.bind`: this machine only.
const BIND: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));

/// What `admin.token` must look like.
const TOKEN: &str = "token = { env = \"NAME\" } or token = { file = \"path\" }: secrets come from a file or the environment";

/// Default of `revocation.max_entries`: at some 200 bytes each 20 MiB, and more people than
/// are ever thrown out at once.
const MAX_ENTRIES: u64 = 100_000;

/// An entry for each of a million people is some 200 MiB, and a file that takes seconds to write.
const ENTRY_COUNTS: RangeInclusive<u64> = 1..=1_000_000;

/// Default of `revocation.keep`: hardly a token is made to live longer, and an entry that
/// outlives its token costs a few bytes; one that does not would let the token in again.
const KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Shorter than a minute nobody revokes anything; ten years are for ever.
const KEEPS: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 60 * 60);

/// Reads `[admin]`; off when absent.
pub(super) fn admin(root: &mut Section<'_>) -> Result<Option<Admin>, Reported> {
    let Some(mut section) = root.section("admin")? else {
        return Ok(None);
    };
    let bind = section.or("bind", address, BIND);
    let token = match section.has("token") {
        true => secret::source(&mut section, "token", TOKEN).map(Some),
        false => Ok(None),
    };
    if let (Ok(bind), Ok(token)) = (&bind, &token) {
        judge(&section, bind, token.is_some());
    }
    section.done();
    let token = token?.map(|(source, line)| AdminToken { source, line });
    Ok(Some(Admin {
        bind: bind?.value,
        token,
    }))
}

/// Elsewhere than on this machine anyone who can connect could throw everybody out.
fn judge(section: &Section<'_>, bind: &Placed<SocketAddr>, has_token: bool) {
    if bind.value.ip().to_canonical().is_loopback() {
        return;
    }
    let found = format!("{}, which other machines can reach", bind.value);
    if has_token {
        let better = "a loopback address, unless what lies between is private: the token is \
                      sent in clear";
        section.warning("bind", bind.line, found, better);
    } else {
        let allowed = format!("a loopback address such as \"{BIND}\", or beside it {TOKEN}");
        section.error(
            "bind",
            bind.line,
            format!("{found}, without a `token`"),
            allowed,
        );
    }
}

fn address(value: &Value<'_>) -> Result<SocketAddr, Mismatch> {
    let address = value.text().and_then(|text| text.parse().ok());
    address.ok_or_else(|| {
        let allowed = format!("an address and a port: \"{BIND}\", \"[::1]:9090\"");
        Mismatch::of(value, allowed)
    })
}

/// Reads `[revocation]`. What is not written has its default, so that there is always a store.
pub(super) fn revocation(mut section: Section<'_>) -> Result<Revocation, Reported> {
    let file = section.optional("file", path);
    let file = file.map(|file| file.map(|file| section.resolve(&file.value)));
    let max_entries = section.or("max_entries", count(ENTRY_COUNTS), MAX_ENTRIES);
    let keep = section.or("keep", duration(KEEPS), KEEP);
    let line = section.line_of("file").unwrap_or(section.start());
    section.done();
    Ok(Revocation {
        file: file?,
        max_entries: in_memory(max_entries?.value),
        keep: keep?.value,
        line,
    })
}
