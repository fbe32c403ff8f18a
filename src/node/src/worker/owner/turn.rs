//! A turn: entries are applied for a tenth of a second at most, at stretches between which others have their turn.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hebb_engine::{EntryId, Outcome, Partition, Rejection};
use hebb_log::{PartitionKey, Record, Reply};
use hebb_telemetry::traces::{Span, SpanKind, TraceParent};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::warn;

use super::{Owned, OwnerContext};
use crate::task::at_length;
use crate::{replay, trail};

/// Entries applied at a stretch. After each the runtime's other tasks have their turn, those that append what comes next
/// among them: else the disk is idle while entries are applied, and the processor while they are written.
const STRETCH: usize = 64;
/// Up to this long a stretch may take without the runtime's being told that its thread is busy: it wakes another thread
/// then, which has to wait for a processor.
pub(super) const SHORT_STRETCH: Duration = Duration::from_millis(1);
/// A turn ends with the entry that takes it beyond this: what was applied is answered then, and the lease renewed. An answer
/// is waited for about ten seconds, and entries can cost tenths of one.
pub const TURN: Duration = Duration::from_millis(100);

/// Applies what was read until there is no more of it or the turn is over, and lets others have theirs in between.
pub(super) async fn take_turn(context: &OwnerContext, owned: &mut Owned) {
    let until = Instant::now() + context.turn;
    let (mut entries, mut bytes, mut took) = (0_u32, 0_u64, Duration::ZERO);
    loop {
        let Owned { claim, partition, unapplied, outcomes, entry_cost, .. } = owned;
        let stretch = unapplied.len().min(STRETCH);
        let expected = entry_cost.saturating_mul(stretch as u32);
        let begun_at = Instant::now();
        let mut apply = || apply(&claim.partition, partition, unapplied, stretch, until, outcomes);
        let (applied, applied_bytes) = if expected < SHORT_STRETCH { apply() } else { at_length(apply) };
        let elapsed = begun_at.elapsed();
        *entry_cost = elapsed / applied.max(1);
        entries += applied;
        bytes += applied_bytes;
        took += elapsed;
        if owned.unapplied.is_empty() || Instant::now() >= until {
            break;
        }
        yield_now().await;
    }
    owned.since.entries += u64::from(entries);
    owned.since.bytes += bytes;
    if let Some(fallback) = &mut owned.fallback {
        fallback.applied(u64::from(entries), bytes);
    }
    context.metrics.applied(entries, took);
}

/// Applies the first `count` entries in order until the time is up, one at least, and adds the outcomes by gateway. How many
/// entries and bytes they were; what is left stays.
fn apply(
    key: &PartitionKey,
    partition: &mut Partition,
    entries: &mut VecDeque<(EntryId, Record)>,
    count: usize,
    until: Instant,
    replies: &mut BTreeMap<String, Vec<Reply>>,
) -> (u32, u64) {
    let (mut applied, mut bytes, mut skipped) = (0_u32, 0_u64, 0_u32);
    for _ in 0..count {
        let Some((id, record)) = entries.pop_front() else { break };
        let to = record.reply_to.as_ref().map(|to| (trail::addressee(&to.gateway), to.request));
        let span = to.and_then(|((_, context), _)| context).map(|context| begin(context, key, id));
        let outcome = replay::apply(partition, id, &record.entry);
        drop(span);
        applied += 1;
        bytes += record.entry.len() as u64;
        skipped += u32::from(matches!(outcome, Outcome::Rejected(Rejection::Unreadable)));
        if let Some(((gateway, _), request)) = to {
            let reply = Reply { request, body: outcome.encode() };
            match replies.get_mut(gateway) {
                Some(batch) => batch.push(reply),
                None => {
                    replies.insert(gateway.to_owned(), vec![reply]);
                }
            }
        }
        // On simulated time, which stands still meanwhile, every turn goes to its end.
        if Instant::now() >= until {
            break;
        }
    }
    if skipped > 0 {
        warn!(partition = %key, skipped, "entries of another version were refused; do the nodes run different versions?");
    }
    (applied, bytes)
}

/// The application of an entry, as part of the trace of its request.
fn begin(context: TraceParent, key: &PartitionKey, id: EntryId) -> Span {
    let mut span = Span::begin("apply", SpanKind::Consumer, Some(context));
    span.set("hebb.partition", key.to_string());
    span.set("hebb.entry", id.to_string());
    span
}
