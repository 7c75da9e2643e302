//! What the admin address answers: joins `admin` with what the process knows.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::admin::{Answer, Asked};
use crate::revocation::{Keeper, Outcome};
use crate::server::Phase;

/// Something that has to be there before clients are sent to this process.
pub struct ReadyCheck(Box<dyn Fn() -> Option<String> + Send>);

impl ReadyCheck {
    /// `missing` says what is missing, in words for the operator; `None`: nothing.
    pub fn new(missing: impl Fn() -> Option<String> + Send + 'static) -> Self {
        Self(Box::new(missing))
    }
}

impl fmt::Debug for ReadyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadyCheck")
    }
}

/// What there is to answer with.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) ready: Vec<ReadyCheck>,
    /// The public keys of the tokens that the edge signs, as JSON.
    pub(super) keys: Option<Arc<str>>,
    pub(super) revocations: Arc<Keeper>,
}

impl Desk {
    pub(super) fn answer(&self, asked: Asked) -> Answer {
        match asked {
            // It was this thread that answered, and workers do not end before a drain.
            Asked::Health => Answer::text(200, "ok"),
            Asked::Readiness => self.readiness(),
            Asked::Keys => match &self.keys {
                Some(keys) => Answer {
                    status: 200,
                    content_type: "application/json",
                    body: format!("{keys}\n"),
                },
                None => Answer::error(404, "this process signs no tokens"),
            },
            Asked::Revoke(body) => self.revoke(&body),
        }
    }

    fn revoke(&self, body: &[u8]) -> Answer {
        let now = SystemTime::now();
        match self.revocations.revoke(body, now) {
            Outcome::Revoked(entry) => {
                tracing::info!(entry = %entry.to_json(), "revoked");
                Answer::json(200, &serde_json::json!({ "revoked": entry.to_json() }))
            }
            Outcome::Unwritten(entry, why) => {
                let what = format!(
                    "revoked until a restart: the file was not written, for {why}; that is \
                     tried again"
                );
                let body = serde_json::json!({ "revoked": entry.to_json(), "error": what });
                Answer::json(500, &body)
            }
            Outcome::Malformed(what) => Answer::error(400, &what),
            Outcome::Full(full) => Answer::error(507, &full.to_string()),
        }
    }

    fn readiness(&self) -> Answer {
        let draining = *self.phase.borrow() == Phase::Drain;
        let mut missing: Vec<String> = draining
            .then(|| "draining".to_owned())
            .into_iter()
            .collect();
        missing.extend(self.ready.iter().filter_map(|check| (check.0)()));
        match missing.is_empty() {
            true => Answer::text(200, "ready"),
            false => Answer::text(503, &missing.join("\n")),
        }
    }
}
