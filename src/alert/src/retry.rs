//! When a delivery that failed is tried again: backoff with jitter, a circuit breaker, and what the past has taught about a
//! receiver. Pure: the jitter is a digest.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::number;
use crate::template::cut;
use crate::time::{after, elapsed, reached};

/// The first wait, before anything has been learned.
const BASE_MIN: Duration = Duration::from_secs(1);
/// The first wait for a receiver whose failures have lasted long.
const BASE_MAX: Duration = Duration::from_secs(15);
/// The longest wait.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// The part of a wait that it is lengthened or shortened by, at most, so that many don't come back at once.
const JITTER: f64 = 0.2;
/// The longest wait that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Failures in a row that open the breaker.
const BREAKER_FAILURES: u32 = 5;
/// How long it is open at first; it doubles.
const BREAKER_MIN: Duration = Duration::from_secs(30);
/// How long it is open at most.
const BREAKER_MAX: Duration = Duration::from_secs(300);
/// Weight of the newest recovery among those before it.
const LEARNING: f64 = 0.3;
/// The first wait as a part of how long a recovery takes: a few tries before it, not dozens.
const BASE_OF_RECOVERY: f64 = 0.125;
/// Bytes of a reason.
const REASON_MAX: usize = 256;

/// What went wrong with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureKind {
    /// The name wasn't resolved.
    Dns,
    /// The address is not allowed.
    Denied,
    /// No connection.
    Connect,
    /// No protected connection.
    Tls,
    /// It took too long.
    Timeout,
    /// The answer was lost: the message may have arrived.
    AnswerLost,
    /// The receiver has had too many.
    RateLimited,
    /// The receiver is in trouble.
    ServerError,
    /// The receiver doesn't understand.
    ClientError,
    /// The receiver doesn't trust the credentials.
    AuthError,
    /// The receiver is somewhere else.
    Redirect,
    /// A Secret or a key in it is missing.
    Secret,
    /// The message couldn't be made.
    Content,
    /// A file couldn't be written.
    File,
}

impl FailureKind {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Dns => "dns",
            FailureKind::Denied => "denied",
            FailureKind::Connect => "connect",
            FailureKind::Tls => "tls",
            FailureKind::Timeout => "timeout",
            FailureKind::AnswerLost => "answer_lost",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::ServerError => "server_error",
            FailureKind::ClientError => "client_error",
            FailureKind::AuthError => "auth_error",
            FailureKind::Redirect => "redirect",
            FailureKind::Secret => "secret",
            FailureKind::Content => "content",
            FailureKind::File => "file",
        }
    }
}

/// A delivery that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendError {
    /// What went wrong.
    pub kind: FailureKind,
    /// Whether it may go better in a moment.
    pub transient: bool,
    /// How long the receiver asks to wait.
    pub retry_after: Option<Duration>,
    /// What went wrong, in words without any secret.
    pub reason: String,
}

impl SendError {
    /// One that may go better in a moment.
    pub fn transient(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, transient: true, retry_after: None, reason: reason.into() }
    }

    /// One that somebody has to mend.
    pub fn permanent(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, transient: false, retry_after: None, reason: reason.into() }
    }
}

/// Whether a receiver is spared for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Breaker {
    /// It isn't.
    #[default]
    Closed,
    /// Until then nothing is sent; afterwards one message tries how it is.
    #[serde(rename_all = "camelCase")]
    Open {
        /// Until when.
        until: Timestamp,
        /// How many times in a row it has been opened.
        times: u32,
    },
}

/// How deliveries to a receiver went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deliveries {
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that failed for a moment.
    pub failed_transiently: u64,
    /// Those that failed for good.
    pub failed_permanently: u64,
    /// Those that failed, by what went wrong.
    pub failures: BTreeMap<FailureKind, u64>,
    /// Those that failed since the last that succeeded.
    pub consecutive_failures: u32,
    /// When one succeeded last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Timestamp>,
    /// When one failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_failure: String,
    /// Whether the last failure was for good.
    pub last_failure_permanent: bool,
    /// Seconds from a message's first failure to its delivery, on a moving average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_seconds: Option<f64>,
    /// Whether it is spared.
    pub breaker: Breaker,
    /// Until when it asked to be left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
}

impl Deliveries {
    /// The first wait after a failure, learned from how long failures of this receiver have lasted.
    pub fn base(&self) -> Duration {
        let learned = self.recovery_seconds.unwrap_or(0.0) * BASE_OF_RECOVERY;
        Duration::from_secs_f64(learned.clamp(BASE_MIN.as_secs_f64(), BASE_MAX.as_secs_f64()))
    }

    /// When something may be sent to it again.
    pub fn ready_at(&self) -> Option<Timestamp> {
        let breaker = match self.breaker {
            Breaker::Closed => None,
            Breaker::Open { until, .. } => Some(until),
        };
        breaker.max(self.hold_until)
    }

    /// Whether something may be sent to it.
    pub fn is_ready(&self, now: Timestamp) -> bool {
        let closed = match self.breaker {
            Breaker::Closed => true,
            Breaker::Open { until, .. } => reached(until, now, BREAKER_MAX),
        };
        closed && self.hold_until.is_none_or(|until| reached(until, now, RETRY_AFTER_MAX))
    }

    /// Whether it took its last message, or failed only lately.
    pub fn is_healthy(&self) -> bool {
        self.consecutive_failures == 0 || (self.consecutive_failures < 3 && !self.last_failure_permanent)
    }

    /// A delivery succeeded, of a message that has failed since `failing_since`.
    pub(crate) fn succeed(&mut self, failing_since: Option<Timestamp>, now: Timestamp) {
        self.succeeded += 1;
        self.consecutive_failures = 0;
        self.last_success_at = Some(now);
        self.breaker = Breaker::Closed;
        self.hold_until = None;
        if let Some(since) = failing_since {
            let took = elapsed(now, since).as_secs_f64();
            let former = self.recovery_seconds.unwrap_or(took);
            self.recovery_seconds = Some(former + LEARNING * (took - former));
        }
    }

    /// A delivery failed.
    pub(crate) fn fail(&mut self, error: &SendError, now: Timestamp) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        *self.failures.entry(error.kind).or_default() += 1;
        self.last_failure_at = Some(now);
        self.last_failure = cut(error.reason.clone(), REASON_MAX);
        self.last_failure_permanent = !error.transient;
        if let Some(wait) = error.retry_after {
            self.hold_until = Some(after(now, wait.min(RETRY_AFTER_MAX)));
        }
        if !error.transient {
            self.failed_permanently += 1;
            return;
        }
        self.failed_transiently += 1;
        let times = match self.breaker {
            Breaker::Open { times, .. } => times,
            Breaker::Closed if self.consecutive_failures < BREAKER_FAILURES => return,
            Breaker::Closed => 0,
        };
        let open = BREAKER_MIN.saturating_mul(1 << times.min(8)).min(BREAKER_MAX);
        self.breaker = Breaker::Open { until: after(now, open), times: times.saturating_add(1) };
    }
}

/// How long to wait after the `attempts`th failure: doubled each time up to a minute, a fifth more or less by `seed`.
pub fn delay(base: Duration, attempts: u32, seed: &str) -> Duration {
    let doubled = base.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(DELAY_MAX);
    let share = number([seed, &attempts.to_string()]) as f64 / u64::MAX as f64;
    doubled.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)
}

/// What the failures of a receiver say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Name of the receiver.
    pub receiver: String,
    /// Attempts to deliver something.
    pub attempts: u64,
    /// Share that succeeded.
    pub success_rate: f64,
    /// Share that failed for a moment.
    pub transient_rate: f64,
    /// Share that failed for good.
    pub permanent_rate: f64,
    /// What went wrong most often.
    pub commonest: Option<FailureKind>,
    /// Seconds until a message that failed at first arrived, on average.
    pub recovery_seconds: Option<f64>,
    /// What should be done.
    pub recommendation: String,
}

/// Rates of success and failure by receiver, and what should be done about them.
pub fn analyze_failures(deliveries: &BTreeMap<String, Deliveries>) -> Vec<Analysis> {
    deliveries.iter().map(|(receiver, deliveries)| analysis(receiver, deliveries)).collect()
}

fn analysis(receiver: &str, deliveries: &Deliveries) -> Analysis {
    let attempts = deliveries.succeeded + deliveries.failed_transiently + deliveries.failed_permanently;
    let rate = |count: u64| if attempts == 0 { 0.0 } else { count as f64 / attempts as f64 };
    let commonest = deliveries.failures.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| *kind);
    let failed = rate(deliveries.failed_transiently + deliveries.failed_permanently);
    let recommendation = match commonest {
        None => "nothing has failed".to_owned(),
        Some(_) if failed < 0.01 && deliveries.is_healthy() => "failures are rare: nothing to do".to_owned(),
        Some(kind) => advice(kind).to_owned(),
    };
    Analysis {
        receiver: receiver.to_owned(),
        attempts,
        success_rate: rate(deliveries.succeeded),
        transient_rate: rate(deliveries.failed_transiently),
        permanent_rate: rate(deliveries.failed_permanently),
        commonest,
        recovery_seconds: deliveries.recovery_seconds,
        recommendation,
    }
}

fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Dns => "the host name isn't resolved: check it, and the DNS of the operator's pod",
        FailureKind::Denied => {
            "the address is not allowed: set allowPrivate on the receiver and allow private addresses on the operator, if it is meant"
        }
        FailureKind::Connect => "nobody accepts connections: check host and port, network policies and firewalls",
        FailureKind::Tls => {
            "TLS fails: check the receiver's certificate and its expiry, and the certificates that are trusted"
        }
        FailureKind::Timeout => "the receiver is slow: raise the receiver's timeout, or look into it",
        FailureKind::AnswerLost => {
            "answers get lost, so messages may arrive twice: let the receiver use the idempotency key, and look for a proxy in between"
        }
        FailureKind::RateLimited => {
            "the receiver gets too much: group more (groupBy, groupInterval) or raise repeatInterval"
        }
        FailureKind::ServerError => "the receiver is in trouble: look into it, and give the route an escalation",
        FailureKind::ClientError => "the receiver refuses the messages: check its URL and the body's template",
        FailureKind::AuthError => "the receiver refuses the credentials: renew the Secret",
        FailureKind::Redirect => {
            "the receiver has moved, and redirects aren't followed: put its new URL into the Secret"
        }
        FailureKind::Secret => "a Secret or a key in it is missing: create it in the policy's namespace",
        FailureKind::Content => "the message can't be made: check the body's template and the addresses",
        FailureKind::File => "the file can't be written: check the folder, its permissions and its space",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        for (attempts, seconds) in [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (1_000, 60.0)] {
            let delay = delay(BASE_MIN, attempts, "key").as_secs_f64();
            assert!((seconds * 0.8..=seconds * 1.2).contains(&delay), "{attempts}: {delay}");
        }
        assert_ne!(delay(BASE_MIN, 1, "a"), delay(BASE_MIN, 1, "b"));
    }

    #[test]
    fn the_breaker_opens_lets_one_through_and_closes() {
        let mut deliveries = Deliveries::default();
        let error = SendError::transient(FailureKind::ServerError, "500");
        for _ in 0..BREAKER_FAILURES {
            assert_eq!(deliveries.ready_at(), None);
            deliveries.fail(&error, at(0));
        }
        assert_eq!(deliveries.ready_at(), Some(at(30)));
        deliveries.fail(&error, at(30));
        assert_eq!(deliveries.ready_at(), Some(at(90)));
        for _ in 0..20 {
            deliveries.fail(&error, at(90));
        }
        assert_eq!(deliveries.ready_at(), Some(at(390)));
        deliveries.succeed(Some(at(0)), at(400));
        assert_eq!((deliveries.ready_at(), deliveries.is_healthy()), (None, true));
    }

    #[test]
    fn a_receiver_that_recovers_slowly_is_asked_less_often() {
        let mut deliveries = Deliveries::default();
        assert_eq!(deliveries.base(), BASE_MIN);
        deliveries.succeed(Some(at(0)), at(80));
        assert_eq!(deliveries.base(), Duration::from_secs(10));
        deliveries.succeed(Some(at(0)), at(100_000));
        assert_eq!(deliveries.base(), BASE_MAX);
    }

    #[test]
    fn what_the_receiver_asks_for_is_done_within_bounds() {
        let mut deliveries = Deliveries::default();
        let mut error = SendError::transient(FailureKind::RateLimited, "429");
        error.retry_after = Some(Duration::from_secs(120));
        deliveries.fail(&error, at(0));
        assert_eq!(deliveries.ready_at(), Some(at(120)));
        error.retry_after = Some(Duration::from_secs(1_000_000));
        deliveries.fail(&error, at(0));
        assert_eq!(deliveries.ready_at(), Some(at(3_600)));
    }

    #[test]
    fn an_analysis_has_rates_and_says_what_to_do() {
        let mut deliveries = Deliveries::default();
        deliveries.succeed(None, at(0));
        deliveries.fail(&SendError::permanent(FailureKind::AuthError, "403"), at(1));
        let all = [("chat".to_owned(), deliveries), ("log".to_owned(), Deliveries::default())].into();
        let analyses = analyze_failures(&all);
        assert_eq!((analyses[0].attempts, analyses[0].success_rate, analyses[0].permanent_rate), (2, 0.5, 0.5));
        assert!(analyses[0].recommendation.contains("renew the Secret"));
        assert_eq!(analyses[1].recommendation, "nothing has failed");
    }

    proptest! {
        #[test]
        fn parameters_stay_within_their_bounds(
            outcomes in proptest::collection::vec((0u8..4, 0i64..100_000), 0..100),
        ) {
            let mut deliveries = Deliveries::default();
            let mut now = 0;
            for (outcome, wait) in outcomes {
                let began = now;
                now += wait;
                match outcome {
                    0 => deliveries.succeed(None, at(now)),
                    1 => deliveries.succeed(Some(at(began)), at(now)),
                    2 => deliveries.fail(&SendError::transient(FailureKind::Connect, "x"), at(now)),
                    _ => deliveries.fail(&SendError::permanent(FailureKind::AuthError, "x"), at(now)),
                }
                prop_assert!((BASE_MIN..=BASE_MAX).contains(&deliveries.base()));
                let wait = deliveries.ready_at().map_or(Duration::ZERO, |ready| elapsed(ready, at(now)));
                prop_assert!(wait <= BREAKER_MAX);
                let attempts = deliveries.succeeded + deliveries.failed_transiently + deliveries.failed_permanently;
                prop_assert_eq!(deliveries.failures.values().sum::<u64>(), attempts - deliveries.succeeded);
            }
        }
    }
}
