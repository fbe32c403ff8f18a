//! Brings entries into the log and outcomes back.
//!
//! One lane a partition and priority: what arrives while an append is under way goes with the next one, so that load
//! makes batches by itself; and what waits for room in a queue stands in nobody's way who still finds some. Every entry
//! can be appended again without harm (events carry ids, reads change nothing), so a lane repeats an append whose answer
//! was lost, and a request that hears nothing sends itself again.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hebb_engine::Outcome;
use hebb_log::{LogError, PartitionKey, Record, Reply, ReplyTo};
use hebb_telemetry::traces::{Span, SpanKind, TraceParent};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::priority::{Priority, QueueMetrics};
use crate::health::Health;
use crate::stop::Stop;
use crate::store::Store;
use crate::trail;

/// A client waits no longer than this; a failover takes about half of it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After this much silence an appended entry is sent again: a reply can be lost with a connection.
const SEND_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Records of one append: the log takes them in about a millisecond.
const BATCH_MAX: usize = 512;
/// Bytes of one append, but for an entry that has more alone: the log takes 64 MiB, and these within 4 s at the slowest.
const BATCH_BYTES: usize = 16 << 20;
/// Requests that wait in one lane; more are refused.
const LANE_MAX: usize = 4_096;
/// Wait after a failed append.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Wait while a queue is full; at 10,000/s it drains 100 entries in this time.
const FULL_RETRY_AFTER: Duration = Duration::from_millis(4);

/// What to do while a partition's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Tell the client to come back.
    Refuse,
    /// Wait for room: the client of a stream is slowed down.
    Wait,
}

/// How an entry is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// What to do while the queue is full.
    pub on_full: OnFull,
    /// When the queue counts as full.
    pub priority: Priority,
}

impl OnFull {
    /// This, for an entry that matters so much.
    pub fn at(self, priority: Priority) -> Manner {
        Manner { on_full: self, priority }
    }
}

impl From<OnFull> for Manner {
    fn from(on_full: OnFull) -> Self {
        on_full.at(Priority::Normal)
    }
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The queue is full.
    #[error("{waiting} entries are waiting for this partition, {max} are allowed to {} priority", .priority.as_str())]
    Full { waiting: u64, max: u64, priority: Priority },
    /// No answer in time. The entry may be in the log; a retry with the same id is safe.
    #[error("no answer within {} s; send the same id again: it is learned once at most", ANSWER_TIMEOUT.as_secs())]
    Late,
    /// The answer makes no sense here.
    #[error("the answer could not be read; do the nodes run different versions?")]
    Unreadable,
}

struct Queued {
    request: u64,
    entry: Bytes,
    on_full: OnFull,
    appended: Arc<AtomicBool>,
    refused: Option<oneshot::Sender<DispatchError>>,
    deadline: Instant,
    /// The request that it is part of, where that is recorded.
    context: Option<TraceParent>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>>;

/// The way from requests to outcomes.
pub struct Dispatcher {
    store: Store,
    gateway: Arc<str>,
    waiting_max: u64,
    next_request: AtomicU64,
    waiting: Waiting,
    lanes: Mutex<HashMap<PartitionKey, Lanes>>,
    /// The lanes' tasks, which hold the store.
    tasks: Mutex<JoinSet<()>>,
    metrics: QueueMetrics,
}

/// The lanes to one partition, by priority.
type Lanes = [Option<mpsc::Sender<Queued>>; Priority::ALL.len()];

/// Takes the request out of the table however its task ends.
struct Ticket {
    request: u64,
    waiting: Waiting,
}

/// An entry that is in its lane or further, and whose outcome isn't known.
pub struct Sent {
    ticket: Ticket,
    partition: PartitionKey,
    entry: Bytes,
    manner: Manner,
    appended: Arc<AtomicBool>,
    answered: oneshot::Receiver<Vec<u8>>,
    refused: oneshot::Receiver<DispatchError>,
    deadline: Instant,
    context: Option<TraceParent>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request);
    }
}

impl Dispatcher {
    /// A dispatcher for the gateway of this id. Requests are numbered from a random start, so that an answer to an
    /// earlier life of the gateway finds nobody.
    pub fn new(store: Store, gateway: String, waiting_max: u64, metrics: QueueMetrics) -> Self {
        Self {
            store,
            gateway: gateway.into(),
            waiting_max,
            next_request: AtomicU64::new(rand::random::<u64>() >> 1),
            waiting: Waiting::default(),
            lanes: Mutex::default(),
            tasks: Mutex::default(),
            metrics,
        }
    }

    /// Hands replies to their requests until the stop.
    pub async fn receive(&self, health: Health, mut stop: Stop) {
        while !stop.is_asked() {
            match self.store.replies.subscribe(&self.gateway).await {
                Ok(replies) => {
                    health.works("replies");
                    self.hand_out(replies, &health, &mut stop).await;
                }
                Err(error) => {
                    health.fails("replies", error.to_string());
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn hand_out(&self, mut replies: mpsc::Receiver<Vec<Reply>>, health: &Health, stop: &mut Stop) {
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = stop.asked() => return,
                _ = beat.tick() => health.works("replies"),
                batch = replies.recv() => {
                    let Some(batch) = batch else { return };
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    for reply in batch {
                        if let Some(request) = waiting.remove(&reply.request) {
                            // An error says that the client has gone.
                            let _ = request.send(reply.body);
                        }
                    }
                }
            }
        }
    }

    /// Lets go of the store. What is under way isn't waited for: nobody hands out replies any more.
    pub async fn close(&self) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut tasks = mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Appends an entry and waits for its outcome.
    pub async fn submit(
        &self,
        partition: &PartitionKey,
        entry: Vec<u8>,
        manner: impl Into<Manner>,
    ) -> Result<Outcome, DispatchError> {
        let sent = self.send(partition, entry, manner).await?;
        self.outcome(sent).await
    }

    /// Puts an entry into its lane. What is sent one after the other with one priority stands in the log in that order.
    pub async fn send(
        &self,
        partition: &PartitionKey,
        entry: Vec<u8>,
        manner: impl Into<Manner>,
    ) -> Result<Sent, DispatchError> {
        let (manner, entry) = (manner.into(), Bytes::from(entry));
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let context = trail::current();
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(request, answer);
        let ticket = Ticket { request, waiting: self.waiting.clone() };
        let appended = Arc::new(AtomicBool::new(false));
        let (refuse, refused) = oneshot::channel();
        let queued = Queued {
            request,
            entry: entry.clone(),
            on_full: manner.on_full,
            appended: appended.clone(),
            refused: Some(refuse),
            deadline,
            context,
        };
        self.enqueue(partition, manner.priority, queued).await?;
        let partition = partition.clone();
        Ok(Sent { ticket, partition, entry, manner, appended, answered, refused, deadline, context })
    }

    /// Waits for the outcome of an entry, and sends it again where it hears nothing.
    pub async fn outcome(&self, sent: Sent) -> Result<Outcome, DispatchError> {
        let Sent { ticket, partition, entry, manner, appended, mut answered, mut refused, deadline, context } = sent;
        let _waiting = context.map(|context| Span::begin("answer", SpanKind::Internal, Some(context)));
        let mut may_refuse = true;
        // Workers read what the log has, acknowledged or not: an outcome can be here before the replicas have the entry,
        // and an entry that could still be lost must not be answered.
        let mut is_durable = false;
        let mut outcome = None;
        loop {
            if is_durable && let Some(outcome) = outcome {
                return outcome;
            }
            let pause = SEND_AGAIN_AFTER.min(deadline.saturating_duration_since(Instant::now()));
            tokio::select! {
                // What has come counts before the time is up.
                biased;
                body = &mut answered, if outcome.is_none() => {
                    let body = body.map_err(|_| DispatchError::Late)?;
                    outcome = Some(Outcome::decode(&body).map_err(|_| DispatchError::Unreadable));
                }
                why = &mut refused, if may_refuse => match why {
                    Ok(why) => return Err(why),
                    // The lane is done with it.
                    Err(_) => {
                        may_refuse = false;
                        is_durable = appended.load(Ordering::Relaxed);
                    }
                },
                () = tokio::time::sleep(pause) => {
                    if Instant::now() >= deadline {
                        return Err(DispatchError::Late);
                    }
                    if outcome.is_none() && appended.swap(false, Ordering::Relaxed) {
                        debug!(%partition, ticket.request, "no answer yet; sending the entry again");
                        let queued = Queued {
                            request: ticket.request,
                            entry: entry.clone(),
                            on_full: manner.on_full,
                            appended: appended.clone(),
                            refused: None,
                            deadline,
                            // A worker of an older version answers nothing that is part of a trace.
                            context: None,
                        };
                        self.enqueue(&partition, manner.priority, queued).await?;
                    }
                }
            }
        }
    }

    async fn enqueue(&self, partition: &PartitionKey, priority: Priority, queued: Queued) -> Result<(), DispatchError> {
        let lane = self.lane(partition, priority);
        if queued.on_full == OnFull::Wait {
            return lane.send(queued).await.map_err(|_| DispatchError::Late);
        }
        lane.try_send(queued).map_err(|_| {
            self.metrics.refused(priority);
            DispatchError::Full { waiting: LANE_MAX as u64, max: LANE_MAX as u64, priority }
        })
    }

    fn lane(&self, partition: &PartitionKey, priority: Priority) -> mpsc::Sender<Queued> {
        let mut all = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = match all.get_mut(partition) {
            Some(lanes) => lanes,
            None => all.entry(partition.clone()).or_default(),
        };
        let place = &mut lanes[priority as usize];
        if let Some(lane) = place
            && !lane.is_closed()
        {
            return lane.clone();
        }
        let (sender, receiver) = mpsc::channel(LANE_MAX);
        let lane = Lane {
            store: self.store.clone(),
            gateway: self.gateway.clone(),
            partition: partition.clone(),
            priority,
            waiting_max: priority.mark(self.waiting_max),
            metrics: self.metrics.clone(),
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Lanes end with the dispatcher; one that ended before has panicked, and makes room.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(lane.run(receiver));
        *place = Some(sender.clone());
        sender
    }
}

/// The appends to one partition with one priority, one after the other.
struct Lane {
    store: Store,
    gateway: Arc<str>,
    partition: PartitionKey,
    priority: Priority,
    waiting_max: u64,
    metrics: QueueMetrics,
}

impl Lane {
    async fn run(self, mut queue: mpsc::Receiver<Queued>) {
        let mut batch: Vec<Queued> = Vec::new();
        loop {
            if batch.is_empty() && queue.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
            while batch.len() < BATCH_MAX
                && let Ok(more) = queue.try_recv()
            {
                batch.push(more);
            }
            let now = Instant::now();
            batch.retain(|queued| now < queued.deadline);
            if !batch.is_empty() {
                let count = fitting(&batch);
                self.append(&mut batch, count).await;
            }
        }
    }

    /// Appends the first `count` of the batch and leaves in it the others, and what must be tried again.
    async fn append(&self, batch: &mut Vec<Queued>, count: usize) {
        let mut spans: Vec<Span> = Vec::new();
        let records: Vec<Record> = batch[..count]
            .iter()
            .map(|queued| {
                let span = queued.context.map(|context| Span::begin("append", SpanKind::Producer, Some(context)));
                let gateway = trail::addressed(&self.gateway, span.as_ref().and_then(Span::context));
                spans.extend(span);
                Record { entry: queued.entry.clone(), reply_to: Some(ReplyTo { gateway, request: queued.request }) }
            })
            .collect();
        let appended = self.store.log.append(&self.partition, &records, self.waiting_max).await;
        for span in &mut spans {
            span.set("hebb.partition", self.partition.to_string());
            if appended.is_err() {
                span.fail("the log didn't take the entry");
            }
        }
        drop(spans);
        match appended {
            Ok(_) => {
                self.metrics.appended(self.priority, count);
                for queued in batch.drain(..count) {
                    queued.appended.store(true, Ordering::Relaxed);
                }
            }
            Err(LogError::Full { waiting, max }) => {
                let room = usize::try_from(max.saturating_sub(waiting)).unwrap_or(usize::MAX);
                if room > 0 && room < count {
                    return Box::pin(self.append(batch, room)).await;
                }
                let mut staying = Vec::with_capacity(batch.len());
                for mut queued in batch.drain(..) {
                    match (queued.on_full, queued.refused.take()) {
                        (OnFull::Refuse, Some(refused)) => {
                            self.metrics.refused(self.priority);
                            // An error says that the client has gone.
                            let _ = refused.send(DispatchError::Full { waiting, max, priority: self.priority });
                        }
                        (_, refused) => staying.push(Queued { refused, ..queued }),
                    }
                }
                *batch = staying;
                tokio::time::sleep(FULL_RETRY_AFTER).await;
            }
            Err(LogError::Corrupt(why) | LogError::Invalid(why)) => {
                warn!(partition = %self.partition, why, "the log refuses the entries");
                batch.drain(..count);
            }
            Err(error @ (LogError::Unavailable(_) | LogError::Fenced)) => {
                debug!(partition = %self.partition, %error, "the append failed; trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// How many of a batch go into one append: the first of them in any case.
fn fitting(batch: &[Queued]) -> usize {
    let mut bytes = 0;
    let fit = batch.iter().take_while(|queued| {
        bytes += queued.entry.len();
        bytes <= BATCH_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use hebb_engine::{EntryId, Rejection};
    use hebb_log::{LocalStore, Log, Replies};
    use prometheus::Registry;
    use tokio::time::timeout;

    use super::*;
    use crate::gated::Gated;
    use crate::stop::stop_channel;

    #[tokio::test]
    async fn an_outcome_waits_until_its_entry_can_no_longer_be_lost() -> Result<(), Box<dyn std::error::Error>> {
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        let metrics = QueueMetrics::new(&Registry::new())?;
        let dispatcher = Dispatcher::new(store, "gateway-0".to_owned(), 100, metrics);
        let key = PartitionKey { domain: "gated".to_owned(), index: 0 };
        let (_stopper, stop) = stop_channel();
        let outcome = Outcome::Rejected(Rejection::Unreadable);
        let submitted = async {
            let submit = dispatcher.submit(&key, b"entry".to_vec(), OnFull::Refuse);
            tokio::pin!(submit);
            let early = timeout(Duration::from_millis(300), &mut submit).await;
            assert!(early.is_err(), "answered before the append was acknowledged");
            gates.appends.add_permits(1);
            timeout(Duration::from_secs(1), submit).await
        };
        let applied = async {
            let read = local.read(&key, EntryId::default(), 1, Duration::from_secs(5)).await?;
            let to = read.into_iter().find_map(|(_, record)| record.reply_to).ok_or("nobody waits")?;
            let reply = Reply { request: to.request, body: outcome.encode() };
            local.send(&to.gateway, vec![reply]).await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        };
        let answered = tokio::select! {
            answered = async { tokio::join!(submitted, applied) } => answered,
            () = dispatcher.receive(Health::default(), stop) => return Err("the replies ended".into()),
        };
        answered.1?;
        assert!(matches!(answered.0??, Outcome::Rejected(Rejection::Unreadable)));
        Ok(())
    }

    #[tokio::test]
    async fn large_entries_that_came_together_go_into_several_appends() -> Result<(), Box<dyn std::error::Error>> {
        let local = LocalStore::in_memory()?;
        let (store, gates) = Gated::store(&local);
        let metrics = QueueMetrics::new(&Registry::new())?;
        let dispatcher = Dispatcher::new(store, "gateway-0".to_owned(), 1_000, metrics);
        let key = PartitionKey { domain: "gated".to_owned(), index: 0 };
        // The first is on its way while the others gather.
        let mut sent = vec![dispatcher.send(&key, b"first".to_vec(), OnFull::Wait).await?];
        while local.status(&key).await?.waiting == 0 {
            tokio::task::yield_now().await;
        }
        for number in 0..70 {
            sent.push(dispatcher.send(&key, vec![number; 1 << 20], OnFull::Wait).await?);
        }
        gates.appends.add_permits(100);
        let all = async {
            while local.status(&key).await?.waiting < 71 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, LogError>(())
        };
        timeout(Duration::from_secs(20), all).await??;
        let mut numbers = Vec::new();
        let mut after = EntryId::default();
        while let entries = local.read(&key, after, 100, Duration::ZERO).await?
            && let Some((last, _)) = entries.last()
        {
            after = *last;
            numbers.extend(entries.into_iter().map(|(_, record)| record.entry[0]));
        }
        assert!(numbers[1..].iter().copied().eq(0..70), "{numbers:?}");
        Ok(())
    }
}
