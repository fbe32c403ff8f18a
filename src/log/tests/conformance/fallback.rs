//! When a Redis keeps no fallback although it is asked to.

use std::time::Duration;

use hebb_log::{Claim, Claimed, EntryId, Kept, Log, PartitionKey, Record, RedisStore};

use crate::server::Server;

const LONG: Duration = Duration::from_secs(60);

fn key(index: u32) -> PartitionKey {
    PartitionKey { domain: "fallback".to_owned(), index }
}

fn records(count: usize, bytes: usize) -> Vec<Record> {
    (0..count).map(|n| Record { entry: vec![n as u8; bytes].into(), reply_to: None }).collect()
}

/// Stores a checkpoint after the first of three entries, and one after the third, or where it is said, that keeps it.
async fn keep(store: &RedisStore, key: &PartitionKey, ahead_ms: u64) -> (Claim, Option<Kept>) {
    let ids = store.append(key, &records(3, 1), 10).await.unwrap();
    let Claimed::New(claim) = store.claim(key, "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    store.checkpoint(&claim, ids[0], b"old", None).await.unwrap();
    let position = EntryId { at_ms: ids[2].at_ms + ahead_ms, seq: ids[2].seq };
    let kept = Kept { position: ids[0], since: position, entries: 2, bytes: 2 };
    store.checkpoint(&claim, position, b"new", Some(kept)).await.unwrap();
    let newest = store.load(key).await.unwrap().unwrap();
    assert_eq!((newest.position, newest.state), (position, b"new".to_vec()));
    assert_eq!(store.fallback(key).await.unwrap().is_some(), newest.kept.is_some());
    assert_eq!(store.status(key).await.unwrap().length, 0);
    (claim, newest.kept)
}

#[tokio::test]
async fn a_redis_that_is_short_of_memory_keeps_none() {
    let server = Server::start_with("no", "--maxmemory 64mb --maxmemory-policy noeviction", None);
    let store = server.store("short").await;
    let (claim, kept) = keep(&store, &key(0), 0).await;
    let kept = kept.unwrap();
    // To between three quarters and all of it.
    let used = || server.figure("used_memory").and_then(|used| used.parse::<u64>().ok()).unwrap();
    while used() < 50 << 20 {
        store.append(&key(1), &records(1, 1 << 20), 100).await.unwrap();
    }
    assert_eq!(keep(&store, &key(2), 0).await.1, None);
    // Where one is kept already, it ends.
    let next = store.append(&key(0), &records(1, 1), 10).await.unwrap()[0];
    store.checkpoint(&claim, next, b"newer", Some(Kept { entries: 3, ..kept })).await.unwrap();
    assert_eq!(store.load(&key(0)).await.unwrap().unwrap().kept, None);
    assert_eq!(store.read(&key(0), EntryId::default(), 10, Duration::ZERO).await.unwrap(), vec![]);
}

#[tokio::test]
async fn a_redis_that_has_lost_entries_keeps_none() {
    let server = Server::start("no");
    let store = server.store("lost").await;
    assert!(keep(&store, &key(0), 0).await.1.is_some());
    assert_eq!(keep(&store, &key(1), 1_000).await.1, None);
    assert_eq!(store.read(&key(1), EntryId::default(), 10, Duration::ZERO).await.unwrap(), vec![]);
}
