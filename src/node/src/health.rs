//! Liveness, readiness and what stands behind them.
//!
//! A role names its parts and says of each whether it works; a part that says nothing for [`SILENCE_MAX`] doesn't. So a
//! loop that hangs is seen without anyone asking it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;

/// Five beats of the slowest loop (1 s), and more than the deadline of a call to the store (2 s), so that one slow call
/// isn't an outage.
const SILENCE_MAX: Duration = Duration::from_secs(5);

const LIVENESS: &str = "/health/liveness";
const READINESS: &str = "/health/readiness";
const HEALTH: &str = "/health";
/// Where a process says how it is.
#[cfg(test)]
pub const PATHS: [&str; 3] = [LIVENESS, READINESS, HEALTH];

/// The health of a process.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Cow<'static, str>, Part>>>);

struct Part {
    said_at: Instant,
    trouble: Option<String>,
}

/// What a health endpoint answers.
#[derive(Debug, Serialize)]
pub struct HealthReport {
    /// `ok` or `unavailable`.
    pub status: &'static str,
    /// Each part that doesn't work, and why.
    pub troubles: BTreeMap<Cow<'static, str>, String>,
}

impl Health {
    /// Names a part that must say that it works before the process is ready.
    pub fn expect(&self, part: impl Into<Cow<'static, str>>) {
        self.say(part, Some("starting".to_owned()));
    }

    /// The part works.
    pub fn works(&self, part: impl Into<Cow<'static, str>>) {
        self.say(part, None);
    }

    /// The part doesn't work, and why.
    pub fn fails(&self, part: impl Into<Cow<'static, str>>, why: impl Into<String>) {
        self.say(part, Some(why.into()));
    }

    /// The part has ended, as it should.
    pub fn ends(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    fn say(&self, part: impl Into<Cow<'static, str>>, trouble: Option<String>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part.into(), Part { said_at: Instant::now(), trouble });
    }

    /// Which parts don't work.
    pub fn report(&self) -> HealthReport {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let troubles: BTreeMap<_, _> = parts
            .iter()
            .filter_map(|(name, part)| {
                let silent = part.said_at.elapsed();
                match &part.trouble {
                    Some(trouble) => Some((name.clone(), trouble.clone())),
                    None if silent > SILENCE_MAX => Some((name.clone(), format!("silent for {} s", silent.as_secs()))),
                    None => None,
                }
            })
            .collect();
        HealthReport { status: if troubles.is_empty() { "ok" } else { "unavailable" }, troubles }
    }

    /// The routes `/health/liveness`, `/health/readiness` and `/health`.
    pub fn router(&self) -> Router {
        let ready = self.clone();
        let readiness = move || {
            let ready = ready.clone();
            async move {
                let report = ready.report();
                let code = if report.troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (code, Json(report))
            }
        };
        let alive = || async { Json(HealthReport { status: "ok", troubles: BTreeMap::new() }) };
        Router::new().route(LIVENESS, get(alive)).route(READINESS, get(readiness.clone())).route(HEALTH, get(readiness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_expected_but_silent_keeps_the_process_unready() {
        let health = Health::default();
        health.expect("store");
        assert_eq!(health.report().status, "unavailable");
        health.works("store");
        assert_eq!(health.report().status, "ok");
        health.fails("store", "gone");
        assert_eq!(health.report().troubles["store"], "gone");
    }
}
