//! The process's limit of open files (`RLIMIT_NOFILE`): raised as far as it may be, and
//! compared with what the configuration promises.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Raises the limit to the hard one, which nobody needs leave to do.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "RLIMIT_NOFILE cannot be raised to the hard limit");
    }
}

/// What to say where the hard limit cannot carry `limits.max_connections`.
pub fn shortage(config: &Config) -> Option<String> {
    judge(config, getrlimit(Resource::Nofile).maximum?)
}

fn judge(config: &Config, limit: u64) -> Option<String> {
    let connections = count(config.limits.caps.max_connections);
    let own = own(config);
    let needed = connections.saturating_mul(PER_SESSION).saturating_add(own);
    if needed <= limit {
        return None;
    }
    let fit = limit.saturating_sub(own) / PER_SESSION;
    Some(format!(
        "limits.max_connections = {connections} needs {needed} descriptors, two a session, and \
         the hard limit is {limit} (RLIMIT_NOFILE): {fit} sessions fit. Raise it (LimitNOFILE= \
         in a unit, `ulimit -Hn` in a shell), or lower max_connections"
    ))
}

/// What the process needs itself: each listener's sockets, twice, for they are kept to be handed
/// over; each worker's own; and what housekeeping opens.
fn own(config: &Config) -> u64 {
    let workers = count(config.server.workers.get());
    let sockets = workers.saturating_mul(2 * count(config.listeners.len()));
    sockets + workers * PER_WORKER + HOUSEKEEPING
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The client's and the upstream's.
const PER_SESSION: u64 = 2;

/// Its poller, its timer and its way to be woken.
const PER_WORKER: u64 = 4;

/// The admin address and its connections, files that are read, and the standard streams.
const HOUSEKEEPING: u64 = 96;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let file = Path::new("tests/configs/valid/minimal.toml");
        let mut config = crate::config::load(file).expect("valid").config;
        config.server.workers = std::num::NonZeroUsize::MIN;
        config.limits.caps.max_connections = 1000;
        config
    }

    #[test]
    fn one_descriptor_too_few_is_said_and_what_fits() {
        let needed = 2 * 1000 + 2 + 4 + 96;
        assert_eq!(judge(&config(), needed), None);
        let said = judge(&config(), needed - 1).expect("too few");
        assert!(said.contains("needs 2102 descriptors"), "{said}");
        assert!(said.contains("999 sessions fit"), "{said}");
        let said = judge(&config(), 3).expect("too few");
        assert!(said.contains(": 0 sessions fit"), "{said}");
    }
}
