//! Arithmetic on points in time that never fails: what is out of range is taken for the end of time.

use std::time::Duration;

use jiff::Timestamp;

/// So long after `now`.
pub(crate) fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(now.as_millisecond().saturating_add(millis)).unwrap_or(Timestamp::MAX)
}

/// So long before `now`.
pub(crate) fn before(now: Timestamp, duration: Duration) -> Timestamp {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(now.as_millisecond().saturating_sub(millis)).unwrap_or(Timestamp::MIN)
}

/// How long ago `then` was; nothing when it is still to come, as after a clock was set back.
pub(crate) fn elapsed(now: Timestamp, then: Timestamp) -> Duration {
    let millis = now.as_millisecond().saturating_sub(then.as_millisecond());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Whether a wait until `at` is over. One that is longer than any is meant to be was begun by a clock which has been put back
/// since: it is over too.
pub(crate) fn reached(at: Timestamp, now: Timestamp, longest: Duration) -> bool {
    at <= now || after(now, longest) < at
}
