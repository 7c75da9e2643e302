//! What the admin address answers: joins `admin` with what the process knows.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::admin::{Answer, Asked, Guard};
use crate::config::Apply;
use crate::config::units::duration_text;
use crate::revocation::{Keeper, Outcome};
use crate::server::phase::{Begun, Phase, RouteDrains, Upgrade, Wish};
use crate::server::reload::{By, Reloads};
use crate::server::standing::Standing;

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
    pub(super) wish: mpsc::Sender<Wish>,
    pub(super) upgrade: watch::Receiver<Upgrade>,
    pub(super) route_drains: RouteDrains,
    pub(super) standing: Arc<Mutex<Standing>>,
    pub(super) revocations: Arc<Keeper>,
    pub(super) reloads: Reloads,
}

impl Desk {
    /// Who may ask now.
    pub(super) fn guard(&self) -> Guard {
        self.standing().guard()
    }

    pub(super) async fn answer(&self, asked: Asked) -> Answer {
        match asked {
            // It was this thread that answered, and workers do not end before a drain.
            Asked::Health => Answer::text(200, "ok"),
            Asked::Readiness => self.readiness(),
            Asked::Keys => self.keys(),
            Asked::Revoke(body) => self.revoke(&body),
            Asked::Drain(None) => self.wish(Wish::Drain, "draining"),
            Asked::Upgrade => self.wish(Wish::Upgrade, "upgrade"),
            Asked::Upgraded => self.upgraded(),
            Asked::Drain(Some(route)) => self.drain_route(&route),
            Asked::Reload(query) => self.reload(query.as_deref()).await,
        }
    }

    /// Never held over a wait.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Answer {
        match &self.standing().keys {
            Some(keys) => Answer {
                status: 200,
                content_type: "application/json",
                body: format!("{keys}\n"),
            },
            None => Answer::error(404, "this process signs no tokens"),
        }
    }

    async fn reload(&self, query: Option<&str>) -> Answer {
        let apply = match query.map(|query| query.strip_prefix("apply=").map(Apply::from_word)) {
            None => None,
            Some(Some(Some(apply))) => Some(apply),
            Some(_) => return Answer::error(400, "?apply=new or ?apply=live, and nothing else"),
        };
        let (status, body) = self.reloads.ask(By::Admin, apply).await.answer();
        Answer::json(status, &body)
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

    fn wish(&self, wish: Wish, what: &str) -> Answer {
        // Full means that it was told before, and has not come to it yet.
        let told = !matches!(self.wish.try_send(wish), Err(TrySendError::Closed(_)));
        match told {
            true => Answer::json(202, &serde_json::json!({ what: "process" })),
            false => Answer::error(503, "the process ends already"),
        }
    }

    /// How it went is seen by the number of the process that answers.
    fn upgraded(&self) -> Answer {
        let (state, why) = match &*self.upgrade.borrow() {
            Upgrade::None => ("none", None),
            Upgrade::Starting => ("starting", None),
            Upgrade::Failed(why) => ("failed", Some(why.clone())),
        };
        let pid = std::process::id();
        let body = serde_json::json!({ "pid": pid, "upgrade": state, "why": why });
        Answer::json(200, &body)
    }

    fn drain_route(&self, route: &str) -> Answer {
        let standing = self.standing();
        let over = standing.drain.spread;
        if !standing.routes.iter().any(|known| known == route) {
            let what = format!("there is no route `{}`", route.escape_default());
            return Answer::error(404, &what);
        }
        let spread = duration_text(over);
        match self.route_drains.tell(route, over) {
            Begun::Now => {
                tracing::info!(
                    route,
                    spread,
                    "draining a route: its sessions are closed with 1012"
                );
                let body = serde_json::json!({ "draining": route, "spread": spread });
                Answer::json(202, &body)
            }
            Begun::Before => {
                let body = serde_json::json!({ "draining": route, "begun": "before" });
                Answer::json(202, &body)
            }
            Begun::Never => {
                Answer::error(503, "too many routes are being drained; ask again later")
            }
        }
    }

    fn readiness(&self) -> Answer {
        let draining = *self.phase.borrow() != Phase::Serve;
        let mut missing: Vec<String> = draining
            .then(|| "draining".to_owned())
            .into_iter()
            .collect();
        missing.extend(self.standing().ready.iter().filter_map(|check| (check.0)()));
        match missing.is_empty() {
            true => Answer::text(200, "ready"),
            false => Answer::text(503, &missing.join("\n")),
        }
    }
}
