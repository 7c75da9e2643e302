//! Which route a request belongs to, by host and path; and how many sessions a route may have.
//!
//! Owns the order of the routes, most specific first, and each route's [`OriginSet`]. Knows
//! no HTTP: the caller hands in a host that is lower case and without port, and a path
//! without query.
//!
//! Paths are compared as raw bytes and case-sensitively: nothing is decoded or normalized
//! here. A caller that has not refused dot segments must know that `/public/../admin`
//! belongs to `/public/*`; `%70ublic` and `public` are different paths.

mod places;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::config::{HostPattern, PathPattern, Route};
use crate::proto::origin::{MissingOrigin, OriginError, OriginPattern, OriginSet};
pub use crate::route::places::{NoPlace, Place, Places, Subject};

/// One route, ready to be matched and to judge origins.
#[derive(Debug)]
pub struct RouteEntry {
    /// Where it stands in the list given to [`Routes::new`], so that what others keep per
    /// route can be found.
    pub index: usize,
    /// Its configuration.
    pub route: Arc<Route>,
    /// The origins it admits.
    pub origins: OriginSet,
}

/// All routes, in the order in which they are tried.
#[derive(Debug)]
pub struct Routes {
    entries: Vec<RouteEntry>,
    /// From a name to where it stands in the list given.
    names: HashMap<String, usize>,
}

impl Routes {
    /// Orders the routes and reads their origins.
    ///
    /// # Errors
    /// The first origin that is not a pattern. The configuration has refused those, so this
    /// is reached only by a route that was put together in code.
    pub fn new(routes: &[Arc<Route>]) -> Result<Self, RouteError> {
        let mut entries = routes
            .iter()
            .enumerate()
            .map(|(index, route)| RouteEntry::new(index, route))
            .collect::<Result<Vec<_>, _>>()?;
        // The sort is stable: of two routes alike in everything, the first written wins.
        entries.sort_by_key(|entry| Reverse(specificity(&entry.route)));
        let names = entries.iter();
        let names = names.map(|entry| (entry.route.name.clone(), entry.index));
        Ok(Self {
            names: names.collect(),
            entries,
        })
    }

    /// The most specific of the routes that match both host and path.
    ///
    /// An exact host beats a suffix, of which the longer wins, and that beats a route for any
    /// host; among routes alike in that, an exact path beats a prefix, of which the longer
    /// wins. A route counts only if its path matches too, so a path that the routes of an
    /// exact host do not know may still be found among those of a suffix or of any host.
    ///
    /// The prefix `/x/*` matches `/x/` and what is below it, not `/x`: that is another
    /// resource, and has to be a route of its own.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&RouteEntry> {
        self.entries.iter().find(|entry| {
            host_matches(entry.route.host.as_ref(), host) && path_matches(&entry.route.path, path)
        })
    }

    /// Where the route of this name stands in the list given.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Every route, most specific first.
    pub fn iter(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter()
    }
}

impl RouteEntry {
    fn new(index: usize, route: &Arc<Route>) -> Result<Self, RouteError> {
        let parse = |text: &String| {
            OriginPattern::parse(text).map_err(|source| RouteError {
                route: route.name.clone(),
                origin: text.clone(),
                source,
            })
        };
        let patterns = route.origins.iter().map(parse).collect::<Result<_, _>>()?;
        let missing = if route.allow_missing_origin {
            MissingOrigin::Allow
        } else {
            MissingOrigin::Refuse
        };
        Ok(Self {
            index,
            route: Arc::clone(route),
            origins: OriginSet::new(patterns, missing),
        })
    }
}

/// An origin in a route's list that cannot be read.
#[derive(Debug, Error)]
#[error("route {route}: origin {origin:?}")]
pub struct RouteError {
    /// The route's name.
    pub route: String,
    /// The origin as written.
    pub origin: String,
    /// What is wrong with it.
    pub source: OriginError,
}

/// Compares greater for the route that is to be tried first.
fn specificity(route: &Route) -> (HostRank, PathRank) {
    let host = match &route.host {
        None => HostRank::Any,
        Some(HostPattern::Suffix(suffix)) => HostRank::Suffix(suffix.len()),
        Some(HostPattern::Exact(_)) => HostRank::Exact,
    };
    let path = match &route.path {
        PathPattern::Prefix(prefix) => PathRank::Prefix(prefix.len()),
        PathPattern::Exact(_) => PathRank::Exact,
    };
    (host, path)
}

/// Least specific first, as the derived order has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    /// The length of the suffix.
    Suffix(usize),
    Exact,
}

/// Least specific first, as the derived order has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// The length of the prefix.
    Prefix(usize),
    Exact,
}

fn host_matches(pattern: Option<&HostPattern>, host: &str) -> bool {
    match pattern {
        None => true,
        Some(HostPattern::Exact(exact)) => exact == host,
        Some(HostPattern::Suffix(suffix)) => host.len() > suffix.len() && host.ends_with(suffix),
    }
}

fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Prefix(prefix) => path.starts_with(prefix),
    }
}

#[cfg(test)]
mod tests;
