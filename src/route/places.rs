//! How many sessions a route has, and how many of one subject.
//!
//! Shared by all workers, asked once for each session of a route that has a cap, and outlives
//! a configuration: routes are known by name, and the caps are said with each question.
//! Where a reload brings the first cap of a route, the sessions from before are not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::RouteAdmission;

/// The sessions that are counted. Cheap to clone; clones count together.
///
/// Memory: one entry for each route, and each subject on it, that has a session right now.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Counts>>);

/// `1 ≤ count`; what has no session is absent.
type Counts = HashMap<Arc<Owner>, usize>;

/// The right to one session; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Place {
    places: Places,
    route: Option<Arc<Owner>>,
    subject: Option<Arc<Owner>>,
}

/// Who a session may be of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// `iss` of the token.
    pub issuer: Option<&'a str>,
    /// Its `sub`. Tokens of one issuer that name nobody count together, as one.
    pub subject: Option<&'a str>,
}

/// Which cap was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// `max_sessions`.
    #[error("the route has as many sessions as it may")]
    Route,
    /// `max_sessions_per_subject`.
    #[error("the subject has as many sessions as it may")]
    Subject,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Owner {
    Route(String),
    Subject {
        route: String,
        issuer: Option<String>,
        subject: Option<String>,
    },
}

impl Places {
    /// A place on `route`; `None`: it has no caps, and nothing is counted.
    ///
    /// # Errors
    /// The cap that is reached. Nothing is taken then.
    pub fn take(
        &self,
        route: &str,
        caps: &RouteAdmission,
        subject: Subject<'_>,
    ) -> Result<Option<Box<Place>>, NoPlace> {
        if caps.max_sessions.is_none() && caps.max_sessions_per_subject.is_none() {
            return Ok(None);
        }
        let mut place = Place {
            places: self.clone(),
            route: None,
            subject: None,
        };
        if let Some(most) = caps.max_sessions {
            let owner = Owner::Route(route.to_owned());
            // What is taken already goes back with the place.
            place.route = Some(self.enter(owner, most).ok_or(NoPlace::Route)?);
        }
        if let Some(most) = caps.max_sessions_per_subject {
            let owner = Owner::Subject {
                route: route.to_owned(),
                issuer: subject.issuer.map(str::to_owned),
                subject: subject.subject.map(str::to_owned),
            };
            place.subject = Some(self.enter(owner, most).ok_or(NoPlace::Subject)?);
        }
        Ok(Some(Box::new(place)))
    }

    fn enter(&self, owner: Owner, most: usize) -> Option<Arc<Owner>> {
        let mut counts = self.lock();
        match counts.entry(Arc::new(owner)) {
            Entry::Occupied(mut entry) => {
                if *entry.get() >= most {
                    return None;
                }
                *entry.get_mut() += 1;
                Some(Arc::clone(entry.key()))
            }
            Entry::Vacant(_) if most == 0 => None,
            Entry::Vacant(entry) => {
                let owner = Arc::clone(entry.key());
                entry.insert(1);
                Some(owner)
            }
        }
    }

    fn leave(&self, owner: Arc<Owner>) {
        if let Entry::Occupied(mut count) = self.lock().entry(owner) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// A panic elsewhere while the lock was held leaves the counts whole: each is changed in
    /// one step.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for owner in [self.route.take(), self.subject.take()]
            .into_iter()
            .flatten()
        {
            self.places.leave(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(sessions: Option<usize>, of_subject: Option<usize>) -> RouteAdmission {
        RouteAdmission {
            max_sessions: sessions,
            max_sessions_per_subject: of_subject,
            ..RouteAdmission::default()
        }
    }

    fn of<'a>(issuer: &'a str, subject: &'a str) -> Subject<'a> {
        Subject {
            issuer: Some(issuer),
            subject: Some(subject),
        }
    }

    #[test]
    fn a_route_without_caps_counts_nothing() {
        let places = Places::default();
        let place = places.take("chat", &caps(None, None), of("i", "alice"));
        assert!(matches!(place, Ok(None)));
        assert!(places.lock().is_empty());
    }

    #[test]
    fn one_more_than_a_route_may_have_is_refused() {
        let places = Places::default();
        let (two, one) = (caps(Some(2), None), caps(Some(1), None));
        let first = places.take("chat", &two, of("i", "a")).expect("1 of 2");
        let _second = places.take("chat", &two, of("i", "a")).expect("2 of 2");
        assert_eq!(
            places.take("chat", &two, of("i", "b")).err(),
            Some(NoPlace::Route)
        );
        let _other = places
            .take("feed", &one, Subject::default())
            .expect("1 of 1");
        drop(first);
        let _third = places
            .take("chat", &two, of("i", "b"))
            .expect("2 of 2 again");
        // Another configuration may say another number.
        let fewer = places.take("chat", &one, of("i", "c"));
        assert_eq!(fewer.err(), Some(NoPlace::Route));
    }

    #[test]
    fn a_subject_counts_by_issuer_and_route_and_takes_nothing_when_refused() {
        let places = Places::default();
        let one = caps(Some(9), Some(1));
        let alice = places.take("chat", &one, of("i", "alice")).expect("1 of 1");
        let again = places.take("chat", &one, of("i", "alice"));
        assert_eq!(again.err(), Some(NoPlace::Subject));
        assert_eq!(places.lock()[&Owner::Route("chat".into())], 1);
        let others = [
            places.take("chat", &one, of("j", "alice")),
            places.take("chat", &one, of("i", "bob")),
            places.take("feed", &one, of("i", "alice")),
        ];
        assert!(others.iter().all(Result::is_ok));
        drop(alice);
        drop(
            places
                .take("chat", &one, of("i", "alice"))
                .expect("1 of 1 again"),
        );
        drop(others);
        assert!(places.lock().is_empty());
    }

    #[test]
    fn tokens_that_name_nobody_count_as_one_subject() {
        let places = Places::default();
        let one = caps(None, Some(1));
        let nobody = Subject {
            issuer: Some("i"),
            subject: None,
        };
        let _first = places.take("chat", &one, nobody).expect("1 of 1");
        assert_eq!(
            places.take("chat", &one, nobody).err(),
            Some(NoPlace::Subject)
        );
    }

    #[test]
    fn threads_never_exceed_a_cap_together() {
        let places = Places::default();
        let two = caps(Some(5), Some(2));
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (places, two) = (&places, &two);
                scope.spawn(move || {
                    let subject = format!("s{}", n % 2);
                    for _ in 0..500 {
                        let held: Vec<_> = (0..4)
                            .map(|_| places.take("chat", two, of("i", &subject)))
                            .collect();
                        assert!(held.iter().filter(|place| place.is_ok()).count() <= 2);
                    }
                });
            }
        });
        assert!(places.lock().is_empty());
    }
}
