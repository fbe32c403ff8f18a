//! Decides how long an owner keeps the checkpoint of an older layout that it began with, and the log since: so that
//! workers of the version before it can go on when an upgrade is taken back.

use std::time::Duration;

use hebb_engine::EntryId;
use hebb_log::Kept;
use tokio::time::Instant;

use super::pace::LOG_BYTES_MAX;

/// From the first checkpoint of the newer layout on: an upgrade that makes progress takes minutes, and so does it to see
/// that it is no good.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// A replay of so much takes minutes, as learning it did: worth it for a partition that would be down else, and no more.
const BYTES_MAX: u64 = 8 * LOG_BYTES_MAX;

/// What is kept, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Fallback {
    position: EntryId,
    /// Entries applied since, and their bytes.
    entries: u64,
    bytes: u64,
    /// Where the first newer checkpoint was, and when this ends; nothing before there is one.
    since: Option<(EntryId, Instant)>,
}

impl Fallback {
    /// The checkpoint at `position`, which its owner will replace by one of a newer layout.
    pub fn begun(position: EntryId) -> Self {
        Self { position, entries: 0, bytes: 0, since: None }
    }

    /// One that is kept beside the checkpoint at `newest`. What is left of its time is known by the log's own clock.
    pub fn taken_over(kept: Kept, newest: EntryId, now: Instant) -> Self {
        let Kept { position, since, entries, bytes } = kept;
        let age = Duration::from_millis(newest.at_ms.saturating_sub(since.at_ms));
        Self { position, entries, bytes, since: Some((since, now + KEPT_FOR.saturating_sub(age))) }
    }

    /// Takes note of what was applied.
    pub fn applied(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
    }

    /// Whether it has had its time, or the log has grown too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.since.is_some_and(|(_, until)| until <= now) || self.bytes > BYTES_MAX
    }

    /// What a checkpoint at `position` is to keep.
    pub fn kept(&mut self, position: EntryId, now: Instant) -> Kept {
        let (since, _) = *self.since.get_or_insert((position, now + KEPT_FOR));
        Kept { position: self.position, since, entries: self.entries, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn at(at_ms: u64) -> EntryId {
        EntryId { at_ms, seq: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_hour_begins_with_the_first_newer_checkpoint() {
        let now = Instant::now();
        let mut fallback = Fallback::begun(at(1));
        assert!(!fallback.is_over(now + 9 * KEPT_FOR));
        fallback.applied(3, 30);
        let kept = fallback.kept(at(5), now);
        assert_eq!(kept, Kept { position: at(1), since: at(5), entries: 3, bytes: 30 });
        fallback.applied(2, 20);
        let kept = fallback.kept(at(9), now + KEPT_FOR / 2);
        assert_eq!(kept, Kept { position: at(1), since: at(5), entries: 5, bytes: 50 });
        assert!(!fallback.is_over(now + KEPT_FOR - Duration::from_millis(1)));
        assert!(fallback.is_over(now + KEPT_FOR));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_owner_goes_on_with_what_is_left_of_the_hour() {
        let now = Instant::now();
        let kept = Kept { position: at(1), since: at(5), entries: 3, bytes: 30 };
        let mut fallback = Fallback::taken_over(kept, at(5 + HOUR_MS / 4), now);
        assert!(!fallback.is_over(now + KEPT_FOR / 2));
        assert!(fallback.is_over(now + KEPT_FOR / 4 * 3));
        assert_eq!(fallback.kept(at(5 + HOUR_MS), now), kept);
        assert!(Fallback::taken_over(kept, at(5 + 2 * HOUR_MS), now).is_over(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_log_ends_it_at_once() {
        let mut fallback = Fallback::begun(at(1));
        fallback.applied(1, BYTES_MAX);
        assert!(!fallback.is_over(Instant::now()));
        fallback.applied(1, 1);
        assert!(fallback.is_over(Instant::now()));
    }
}
