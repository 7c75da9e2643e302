//! What reaches one session from outside its task: an end, other limits, how memory stands. It
//! says what the session owns, and wakes the task.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::gauge::Gauge;
use crate::config::Route;
use crate::proto::policy::Policy;

/// Reaches one session from outside its task.
#[derive(Debug, Default)]
pub struct Handle {
    ending: Cell<Option<Why>>,
    /// What the session was told last to obey; `None`: nothing but what it was born with.
    policy: RefCell<Option<Arc<Policy>>>,
    /// Whether it has not heard so yet.
    revised: Cell<bool>,
    /// Whether its turn to be asked to end comes.
    leaving: Cell<bool>,
    /// The route, once there is a session.
    route: OnceCell<Arc<Route>>,
    /// The worker's.
    gauge: Rc<Gauge>,
    /// What the session and its legs own of it.
    owned: Cell<usize>,
    /// The part of that which is a leg's that was cut off.
    stuck: Cell<usize>,
    /// How memory stands, as the session was told last.
    memory: Cell<Memory>,
    /// Whether it has yet to hear so.
    is_news: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Of two the later one here stands: who is thrown out is not told to come back, as one is
/// whose edge restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Drained,
    Revoked,
    CutOff,
}

/// How the memory of the process stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Memory {
    #[default]
    Ample,
    Short,
    Gone,
}

impl Handle {
    /// Of a connection whose memory counts in `gauge`.
    pub fn new(gauge: Rc<Gauge>) -> Self {
        Self {
            ending: Cell::default(),
            policy: RefCell::default(),
            revised: Cell::default(),
            leaving: Cell::default(),
            route: OnceCell::default(),
            gauge,
            owned: Cell::default(),
            stuck: Cell::default(),
            memory: Cell::default(),
            is_news: Cell::default(),
            waker: RefCell::default(),
        }
    }

    /// Memory that the session and its legs own for bytes on their way.
    pub fn owned(&self) -> usize {
        self.owned.get()
    }

    /// Says what the session owns from now on.
    pub(crate) fn own(&self, bytes: usize) {
        if bytes != self.owned.get() {
            self.gauge.change(self.owned.replace(bytes), bytes);
        }
    }

    /// The session takes no more in from its next wake-up on, which is now. Whether that is new.
    pub fn throttle(&self) -> bool {
        self.memory.get() == Memory::Ample && self.tell(Memory::Short)
    }

    /// It does so again, if it was throttled.
    pub fn relieve(&self) {
        if self.memory.get() == Memory::Short {
            self.tell(Memory::Ample);
        }
    }

    /// The session ends and lets go of its memory at its next wake-up, which is now. Whether that
    /// is new.
    pub fn overload(&self) -> bool {
        self.memory.get() != Memory::Gone && self.tell(Memory::Gone)
    }

    fn tell(&self, memory: Memory) -> bool {
        self.memory.set(memory);
        self.is_news.set(true);
        self.wake();
        true
    }

    /// How memory stands, where the session has not heard so.
    pub(super) fn take_memory(&self) -> Option<Memory> {
        self.is_news.take().then(|| self.memory.get())
    }

    /// Says which route the session is of; only the first time counts.
    pub fn belong_to(&self, route: &Arc<Route>) {
        self.route.get_or_init(|| Arc::clone(route));
    }

    /// The route, as it was when the session began; `None`: there is no session yet.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.route.get()
    }

    /// The session drains at its next wake-up, which is now.
    pub fn drain(&self) {
        self.wake_for(Why::Drained);
    }

    /// The session's token was revoked: it ends at its next wake-up, which is now.
    pub fn revoke(&self) {
        self.wake_for(Why::Revoked);
    }

    /// The session obeys the limits of `policy` from its next wake-up on, which is now. Whether
    /// they are others than it obeys already; if not, it is left alone.
    pub fn revise(&self, policy: &Arc<Policy>) -> bool {
        let is_other = {
            let told = self.policy.borrow();
            let obeyed = told.as_ref().or_else(|| Some(&self.route()?.policy));
            obeyed.is_none_or(|obeyed| obeyed.limits != policy.limits)
        };
        if is_other {
            *self.policy.borrow_mut() = Some(Arc::clone(policy));
            self.revised.set(true);
            self.wake();
        }
        is_other
    }

    /// Notes that somebody will ask the session to end; `false`: somebody does already.
    pub fn leave(&self) -> bool {
        !self.leaving.replace(true)
    }

    /// Nobody is to ask it to end any more.
    pub fn stay(&self) {
        self.leaving.set(false);
    }

    /// Whether somebody will ask it to end, or has.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The session is over at its next wake-up, which is now, whatever it waits for.
    pub fn cut_off(&self) {
        self.wake_for(Why::CutOff);
    }

    /// Resolves when the session is to end. For whoever holds the session's task up; one that
    /// relays looks for itself.
    pub async fn ending(&self) {
        poll_fn(|cx| {
            self.register(cx.waker());
            match self.ending.get() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
    }

    /// Why the session is to end, said once.
    pub(super) fn take_ending(&self) -> Option<Why> {
        self.ending.take()
    }

    /// A leg was cut off with so many bytes that it keeps until it is dropped.
    pub(super) fn keep_stuck(&self, bytes: usize) {
        self.stuck.set(bytes);
    }

    /// Says what the session owns from now on, beside what is stuck.
    pub(super) fn own_beside_stuck(&self, bytes: usize) {
        self.own(bytes + self.stuck.get());
    }

    fn wake_for(&self, why: Why) {
        self.ending.set(self.ending.get().max(Some(why)));
        self.wake();
    }

    /// What the session is to obey, where it has not heard so.
    pub(super) fn take_policy(&self) -> Option<Arc<Policy>> {
        match self.revised.take() {
            true => self.policy.borrow().clone(),
            false => None,
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Remembers whom to wake. Whether that is somebody new.
    pub(super) fn register(&self, waker: &Waker) -> bool {
        let mut known = self.waker.borrow_mut();
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return false;
        }
        *known = Some(waker.clone());
        true
    }
}
