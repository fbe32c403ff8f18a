//! An upgrade with another layout of states that is taken back: workers of before go on where those of after were.

use std::time::{Duration, Instant};

use hebb_engine::{Partition, SNAPSHOT_VERSION, Task, event_digest, snapshot_version};
use hebb_log::{Checkpoint, Claim, Claimed, LocalStore, PartitionKey};
use hebb_node::{Store, stop_channel};
use serde_json::json;

use crate::backups::Redis;
use crate::handover::{Worker, front_end, identity};
use crate::support::{Api, event, id, settings};

/// A state in the layout before this one.
const OLD: &[u8] = include_bytes!("../../../engine/tests/version2/classification.snapshot");

fn key() -> PartitionKey {
    PartitionKey { domain: "d".to_owned(), index: 0 }
}

async fn claim(store: &Store) -> Claim {
    match store.log.claim(&key(), "test", None, Duration::from_secs(10)).await.unwrap() {
        Claimed::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

async fn newest(store: &Store) -> Checkpoint {
    store.log.load(&key()).await.unwrap().unwrap()
}

/// Makes the newest checkpoint one that the version after this one has written.
async fn raise(store: &Store) {
    let Checkpoint { position, mut state, kept, .. } = newest(store).await;
    // Behind the magic; the checksum is that of the body.
    state[4..6].copy_from_slice(&(SNAPSHOT_VERSION + 1).to_le_bytes());
    let claim = claim(store).await;
    store.log.checkpoint(&claim, position, &state, kept).await.unwrap();
    store.log.release(&claim).await.unwrap();
}

/// Sends these events, each until it is acknowledged; whether all were duplicates, or all new.
async fn send(api: &Api, numbers: std::ops::Range<usize>, duplicate: bool) {
    for number in numbers {
        let (answer, _) = api.insist("d", &event(number)).await;
        assert_eq!(answer["duplicate"], json!(duplicate), "{answer}");
    }
}

async fn takes_back(store: Store) {
    let old = Partition::restore(OLD).unwrap();
    let first = claim(&store).await;
    store.log.checkpoint(&first, old.position(), OLD, None).await.unwrap();
    store.log.release(&first).await.unwrap();
    let (stopper, stop) = stop_channel();
    let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
    let api = Api::new(gateway.listen);
    let settings = settings(&[("d", Task::Classification, 1)]);
    let front = tokio::spawn(front_end(store.clone(), settings, gateway, coordinator, stop));

    // The upgrade: what was written in the layout of before stays beside what is written now.
    let worker = Worker::start(&store, "new");
    send(&api, 0..300, false).await;
    worker.stop().await;
    let live = newest(&store).await;
    assert_eq!(snapshot_version(&live.state).unwrap(), SNAPSHOT_VERSION);
    let kept = live.kept.expect("a fallback");
    assert_eq!(kept.position, old.position());
    assert!(kept.entries >= 300, "{kept:?}");
    let fallback = store.log.fallback(&key()).await.unwrap().unwrap();
    assert!(fallback.position == old.position() && fallback.state == OLD);

    // It is taken back: the state is made of the fallback and the log, byte for byte, and stored at once.
    raise(&store).await;
    let worker = Worker::start(&store, "old");
    let started = Instant::now();
    while snapshot_version(&newest(&store).await.state).unwrap() != SNAPSHOT_VERSION {
        assert!(started.elapsed() < Duration::from_secs(20), "the partition stays down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = newest(&store).await;
    assert!(again.state == live.state && again.position == live.position, "the states differ");
    assert!(live.epoch < again.epoch);
    send(&api, 0..300, true).await;
    send(&api, 300..400, false).await;
    let counts = api.counts("d").await;
    let before = old.statistics();
    let digest = (0..400).fold(before.applied_digest, |sum, number| sum.wrapping_add(event_digest(&id(number))));
    assert_eq!(
        (&counts["events"], &counts["appliedDigest"]),
        (&json!(before.events + 400), &json!(format!("{digest:016x}"))),
        "{counts}"
    );
    worker.stop().await;

    // An owner that finds the layout that it writes, and nothing kept, keeps nothing.
    let claim = claim(&store).await;
    let Checkpoint { position, state, .. } = newest(&store).await;
    store.log.checkpoint(&claim, position, &state, None).await.unwrap();
    store.log.release(&claim).await.unwrap();
    let worker = Worker::start(&store, "same");
    send(&api, 400..500, false).await;
    worker.stop().await;
    assert_eq!(newest(&store).await.kept, None, "layouts are equal");
    assert_eq!(store.log.fallback(&key()).await.unwrap(), None);
    stopper.stop();
    front.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_taken_back_leaves_no_partition_down() {
    takes_back(Store::new(LocalStore::in_memory().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_taken_back_leaves_no_partition_down_on_redis() {
    let redis = Redis::start().await;
    takes_back(redis.store("rollback")).await;
}
