//! An owner beside a store whose gates a test opens.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use hebb_engine::{Entry, Event, Features, Input, Label, SNAPSHOT_VERSION, Task};
use hebb_log::{Assignment, Directory, LocalStore, Log, Replies, ReplyTo};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::checkpoints::conclude;
use super::reading::BATCH_MAX;
use super::*;
use crate::gated::Gated;
use crate::health::Health;
use crate::stop::stop_channel;
use crate::worker::Worker;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const EVENTS: u64 = 40;

fn event(number: u64) -> Record {
    let event = Event {
        id: format!("event-{number}").into(),
        input: Input::Features(Features::Dense(vec![number as f64])),
        label: Some(Label::Class("one".into())),
    };
    let reply_to = Some(ReplyTo { gateway: "gateway-0".into(), request: number });
    Record { entry: Entry::Event(event).encode().into(), reply_to }
}

fn domain(key: &PartitionKey) -> Domain {
    Domain { name: key.domain.clone(), partitions: 1, config: PartitionConfig::new(Task::Classification) }
}

fn context(store: Store) -> std::result::Result<OwnerContext, prometheus::Error> {
    Ok(OwnerContext {
        store,
        worker: "worker-0".to_owned(),
        board: Arc::new(Board::default()),
        metrics: WorkerMetrics::new()?,
        checkpoint_interval: Duration::from_secs(5),
        governance: Governance::default(),
        skip_unreadable: false,
        progress_every: 1,
        turn: TURN,
        restart_after: RESTART_AFTER,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_the_future_without_a_fallback_stays_as_it_is_and_is_told_of() -> Result {
    let local = LocalStore::in_memory()?;
    let key = PartitionKey { domain: "future".to_owned(), index: 0 };
    let Claimed::New(claim) = local.claim(&key, "test", None, LEASE).await? else { return Err("held".into()) };
    let mut state = Partition::new(domain(&key).config).snapshot();
    state[4..6].copy_from_slice(&(SNAPSHOT_VERSION + 1).to_le_bytes());
    local.checkpoint(&claim, EntryId::default(), &state, None).await?;
    local.release(&claim).await?;
    let (_sender, domain) = watch::channel(domain(&key));
    let context = context(Store::new(local.clone()))?;
    let board = context.board.clone();
    let (stopper, stop) = stop_channel();
    let owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));
    let told = async {
        while board.trouble().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        board.trouble()
    };
    let trouble = timeout(Duration::from_secs(5), told).await?.ok_or("no trouble")?;
    let wanted = format!("the state of future/0 can't be read: the snapshot has version {}", SNAPSHOT_VERSION + 1);
    assert!(trouble.starts_with(&wanted), "{trouble}");
    stopper.stop();
    timeout(Duration::from_secs(5), owner).await??;
    assert_eq!(board.trouble(), None, "it is somebody else's now");
    let stored = local.load(&key).await?.ok_or("no checkpoint")?;
    assert!((stored.position, stored.state) == (EntryId::default(), state));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_checkpoint_holds_up_no_answer_and_a_stop_waits_for_it() -> Result {
    let local = LocalStore::in_memory()?;
    let (store, gates) = Gated::store(&local);
    // The state that a partition begins with.
    gates.checkpoints.add_permits(1);
    let key = PartitionKey { domain: "slow".to_owned(), index: 0 };
    let (_sender, domain) = watch::channel(domain(&key));
    let context = OwnerContext { checkpoint_interval: Duration::ZERO, ..context(store)? };
    let mut replies = local.subscribe("gateway-0").await?;
    let (stopper, stop) = stop_channel();
    let mut owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));

    let mut answered = 0;
    for number in 0..EVENTS {
        local.append(&key, &[event(number)], EVENTS).await?;
        let batch = timeout(Duration::from_secs(5), replies.recv()).await?.ok_or("the replies ended")?;
        answered += batch.len() as u64;
    }
    assert_eq!(answered, EVENTS);
    assert_eq!(local.status(&key).await?.checkpointed, Some(EntryId::default()), "the gate is closed");
    let told = async {
        while local.status(&key).await?.waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, LogError>(())
    };
    timeout(Duration::from_secs(5), told).await??;

    stopper.stop();
    assert!(timeout(Duration::from_millis(300), &mut owner).await.is_err(), "left without its checkpoint");
    gates.checkpoints.add_permits(2);
    timeout(Duration::from_secs(5), owner).await??;
    let status = local.status(&key).await?;
    assert_eq!((status.waiting, status.owner), (0, None));
    let state = local.load(&key).await?.ok_or("no checkpoint")?.state;
    assert_eq!(Partition::restore(&state)?.statistics().events, EVENTS);
    Ok(())
}

/// From the second life on each waits for the lease of the one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_an_owner_that_panics_from_the_third_time_on() -> Result {
    let local = LocalStore::in_memory()?;
    let (store, gates) = Gated::store(&local);
    gates.checkpoints.add_permits(1_000);
    let key = PartitionKey { domain: "mad".to_owned(), index: 0 };
    local.declare(&domain(&key)).await?;
    let leads = local.campaign("coordinator-0", "a:1", LEASE).await?;
    let assignment = Assignment { version: 1, owners: vec![(key.clone(), "worker-0".to_owned())] };
    local.assign(leads.term, &assignment).await?;
    let context = OwnerContext { restart_after: Duration::from_millis(1), ..context(store)? };
    let (health, part) = (Health::default(), Cow::Borrowed("membership"));
    health.expect(part.clone());
    let worker = Worker { context: Arc::new(context), health: health.clone(), part };
    let (stopper, stop) = stop_channel();
    let running = tokio::spawn(async move { worker.run(stop).await });
    let said = || health.report().troubles.into_values().next();
    let until = async |is_said: &dyn Fn(&Option<String>) -> bool| {
        let waited = async {
            while !is_said(&said()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(10 * LEASE, waited).await
    };
    until(&|said| said.is_none()).await?;

    gates.panics.store(true, Ordering::Relaxed);
    until(&|said| said.as_ref().is_some_and(|why| why.starts_with("applying the log of mad/0 failed"))).await?;
    let why = said().ok_or("ready again")?;
    let times = why.split(' ').find_map(|word| word.parse::<u32>().ok()).ok_or("no number")?;
    assert!((3..=gates.panicked.load(Ordering::Relaxed)).contains(&times), "{why}");
    assert!(why.ends_with("times in a row: no entry of mad/0 can be applied"), "{why}");
    stopper.stop();
    timeout(Duration::from_secs(5), running).await??;
    assert_eq!(said(), None, "it is somebody else's now");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_keeps_its_lease_until_its_checkpoint_is_stored() -> Result {
    let local = LocalStore::in_memory()?;
    let (store, gates) = Gated::store(&local);
    gates.checkpoints.add_permits(1);
    let key = PartitionKey { domain: "leaving".to_owned(), index: 0 };
    let (_sender, domain) = watch::channel(domain(&key));
    let mut replies = local.subscribe("gateway-0").await?;
    let (stopper, stop) = stop_channel();
    let owner = tokio::spawn(own(Arc::new(context(store)?), key.clone(), domain, stop));
    local.append(&key, &[event(1)], EVENTS).await?;
    timeout(Duration::from_secs(5), replies.recv()).await?.ok_or("the replies ended")?;

    stopper.stop();
    tokio::time::sleep(LEASE + RENEW_EVERY).await;
    assert!(matches!(local.claim(&key, "worker-1", None, LEASE).await?, Claimed::Held { .. }));
    gates.checkpoints.add_permits(1);
    timeout(Duration::from_secs(5), owner).await??;
    let status = local.status(&key).await?;
    assert_eq!((status.length, status.owner), (0, None));
    assert!(matches!(local.claim(&key, "worker-1", None, LEASE).await?, Claimed::New(_)));
    Ok(())
}

/// Every turn ends after one entry here, and the store is away for a moment while some are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_turn_has_left_is_applied_by_the_next_ones_and_answered_in_between() -> Result {
    const MANY: u64 = BATCH_MAX as u64 + EVENTS;
    let local = LocalStore::in_memory()?;
    let (store, gates) = Gated::store(&local);
    gates.checkpoints.add_permits(1_000);
    let key = PartitionKey { domain: "dear".to_owned(), index: 0 };
    let records: Vec<Record> = (0..MANY).map(event).collect();
    let last = local.append(&key, &records, MANY).await?.pop().ok_or("no id")?;
    let (_sender, domain) = watch::channel(domain(&key));
    let context = OwnerContext { turn: Duration::ZERO, ..context(store)? };
    let mut replies = local.subscribe("gateway-0").await?;
    let (stopper, stop) = stop_channel();
    let owner = tokio::spawn(own(Arc::new(context), key.clone(), domain, stop));

    let mut answered = Vec::new();
    while answered.len() < MANY as usize {
        let batch = timeout(Duration::from_secs(5), replies.recv()).await?.ok_or("the replies ended")?;
        assert_eq!(batch.len(), 1, "answers leave after each turn");
        answered.extend(batch.iter().map(|reply| reply.request));
        if answered.len() == 20 {
            gates.away.store(true, Ordering::Relaxed);
            let gates = gates.clone();
            tokio::spawn(async move {
                tokio::time::sleep(2 * RETRY_AFTER).await;
                gates.away.store(false, Ordering::Relaxed);
            });
        }
    }
    assert!(answered.iter().copied().eq(0..MANY), "each once, in order: {answered:?}");
    stopper.stop();
    timeout(Duration::from_secs(5), owner).await??;
    let stored = local.load(&key).await?.ok_or("no checkpoint")?;
    let events = Partition::restore(&stored.state)?.statistics().events;
    assert_eq!((stored.position, events), (last, MANY));
    Ok(())
}

#[test]
fn a_checkpoint_that_failed_leaves_what_it_held_to_the_next() -> Result {
    let since = |entries| SinceCheckpoint { entries, bytes: 10 * entries, ..SinceCheckpoint::default() };
    let mut owned = Owned {
        claim: Claim {
            partition: PartitionKey { domain: "lost".to_owned(), index: 0 },
            owner: "worker-0".to_owned(),
            epoch: 1,
            token: String::new(),
        },
        partition: Partition::new(PartitionConfig::new(Task::Classification)),
        valid_until: Instant::now(),
        renewed_at: Instant::now(),
        checkpointed_at: Instant::now(),
        checkpoint_cost: Duration::ZERO,
        state_bytes: 0,
        since: since(3),
        fallback: None,
        storing: Some(Storing { task: JoinSet::new(), since: since(4) }),
        reading: None,
        unapplied: VecDeque::new(),
        progress: (Some(0), Instant::now()),
        outcomes: BTreeMap::new(),
        entry_cost: Duration::ZERO,
        asked_config: None,
        asked_governance: None,
    };
    let metrics = WorkerMetrics::new()?;
    assert_eq!(owned.progress_due(1), Some(7), "also while a checkpoint is on its way");
    let ended = conclude(&metrics, &mut owned, Ok(Err(LogError::Fenced)));
    assert!(matches!(ended, Err(LogError::Fenced)));
    assert_eq!((owned.since.entries, owned.since.bytes), (7, 70));
    assert!(owned.since.failed);
    assert_eq!(owned.progress_due(1), Some(7));
    owned.progress.0 = Some(7);
    owned.storing = Some(Storing { task: JoinSet::new(), since: mem::take(&mut owned.since) });
    conclude(&metrics, &mut owned, Ok(Ok(Duration::ZERO)))?;
    assert_eq!(owned.progress_due(1), Some(0), "a word may have crossed with it");
    Ok(())
}
