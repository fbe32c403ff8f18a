//! What happens to the Redis store when Redis is killed, hangs, or has too few replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hebb_log::{
    Claimed, Directory, Durability, EntryId, Log, LogError, PartitionKey, Record, RedisConfig, RedisStore, Replies,
    Reply,
};
use tokio::time::{sleep, timeout};

use crate::server::{PASSWORD, Server};

pub const START: EntryId = EntryId { at_ms: 0, seq: 0 };
pub const LONG: Duration = Duration::from_secs(60);

pub fn key() -> PartitionKey {
    PartitionKey { domain: "outage".to_owned(), index: 0 }
}

pub fn record(number: u64) -> Record {
    Record { entry: number.to_le_bytes().to_vec().into(), reply_to: None }
}

/// Appends numbers until told to stop; returns what was acknowledged.
pub async fn append_until(store: RedisStore, stop: Arc<AtomicBool>) -> BTreeMap<EntryId, u64> {
    append_to(&key(), store, stop).await
}

/// Appends numbers to a partition until told to stop; returns what was acknowledged.
pub async fn append_to(key: &PartitionKey, store: RedisStore, stop: Arc<AtomicBool>) -> BTreeMap<EntryId, u64> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<Record> = (number..number + 7).map(record).collect();
        match store.append(key, &batch, u64::MAX).await {
            Ok(ids) => acknowledged.extend(ids.into_iter().zip(number..)),
            Err(LogError::Unavailable(_)) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
        number += 7;
    }
    acknowledged
}

/// Reads everything, through all outages, until told to stop and there is no more.
pub async fn read_until(store: RedisStore, stop: Arc<AtomicBool>) -> BTreeMap<EntryId, u64> {
    let mut read = BTreeMap::new();
    let mut after = START;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        match store.read(&key(), after, 1000, Duration::from_millis(300)).await {
            Ok(entries) if entries.is_empty() && stopping => return read,
            Ok(entries) => {
                for (id, record) in entries {
                    assert!(after < id);
                    after = id;
                    read.insert(id, u64::from_le_bytes(record.entry[..].try_into().unwrap()));
                }
            }
            Err(LogError::Unavailable(_)) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_redis_is_killed() {
    let mut server = Server::start("always");
    let store = server.store("killed").await;
    let Claimed::New(claim) = store.claim(&key(), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    let leads = store.campaign("coordinator-0", "a:1", LONG).await.unwrap();
    let mut replies = store.subscribe("gateway-0").await.unwrap();

    let (no_appends, no_reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let appending = tokio::spawn(append_until(store.clone(), Arc::clone(&no_appends)));
    let reading = tokio::spawn(read_until(store.clone(), Arc::clone(&no_reads)));
    for _ in 0..3 {
        sleep(Duration::from_millis(400)).await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            std::thread::sleep(Duration::from_millis(200));
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    let before = store_ready(&store).await;
    sleep(Duration::from_millis(400)).await;
    no_appends.store(true, Ordering::Relaxed);
    let acknowledged = appending.await.unwrap();
    no_reads.store(true, Ordering::Relaxed);
    let read = reading.await.unwrap();
    assert!(acknowledged.keys().any(|id| before < *id), "appends go on after the last restart");
    let lost: Vec<_> = acknowledged.iter().filter(|(id, number)| read.get(id) != Some(number)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());

    let again = store.claim(&key(), "worker-0", Some(&claim), LONG).await.unwrap();
    assert_eq!(again, Claimed::Resumed(claim.clone()));
    store.checkpoint(&claim, *read.keys().last().unwrap(), b"state", None).await.unwrap();
    assert_eq!(store.status(&key()).await.unwrap().length, 0);
    assert_eq!(store.campaign("coordinator-0", "a:1", LONG).await.unwrap(), leads);

    // The subscription comes back by itself, though not at the same moment as the other connections.
    let heard = async {
        loop {
            store.send("gateway-0", vec![Reply { request: 1, body: Vec::new() }]).await.unwrap();
            if let Ok(batch) = timeout(Duration::from_millis(100), replies.recv()).await {
                return batch;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(10), heard).await.unwrap().unwrap().len(), 1);
}

/// Waits until the store answers again and returns the newest id then.
pub async fn store_ready(store: &RedisStore) -> EntryId {
    let begun = Instant::now();
    loop {
        match store.append(&key(), &[record(u64::MAX)], u64::MAX).await {
            Ok(ids) => return ids[0],
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_fails_calls_in_time_and_is_used_again_afterwards() {
    let server = Server::start("everysec");
    let store = server.store("hangs").await;
    store.append(&key(), &[record(1)], 10).await.unwrap();
    server.signal("STOP");
    let begun = Instant::now();
    let (key, batch) = (key(), [record(2)]);
    let (appended, read, led) = tokio::join!(
        store.append(&key, &batch, 10),
        store.read(&key, START, 10, Duration::from_millis(100)),
        store.leader(),
    );
    assert!(matches!(appended, Err(LogError::Unavailable(_))));
    assert!(matches!(read, Err(LogError::Unavailable(_))));
    assert!(matches!(led, Err(LogError::Unavailable(_))));
    // Nor is the next call, on a new connection, any slower.
    assert!(matches!(store.ping().await, Err(LogError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    server.signal("CONT");
    store_ready(&store).await;
    assert!(!store.read(&key, START, 10, Duration::ZERO).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicated_append_needs_its_replicas() {
    let primary = Server::start("everysec");
    let replicated = RedisConfig { durability: Durability::Replicated { replicas: 1 }, ..primary.config("replicated") };
    let store = RedisStore::connect(replicated).await.unwrap();
    let error = store.append(&key(), &[record(1)], 10).await.unwrap_err();
    let LogError::Unavailable(source) = error else { panic!("{error}") };
    assert!(source.to_string().starts_with("0 of 1 replicas"), "{source}");

    let replica = primary.replica();
    let begun = Instant::now();
    while store.append(&key(), &[record(2)], 1000).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the replica doesn't follow");
    }
    let copy = replica.store("replicated").await;
    let read = copy.read(&key(), START, 1000, Duration::ZERO).await.unwrap();
    assert_eq!(read.last().map(|(_, record)| record.clone()), Some(record(2)));
    // A replica takes no writes, and that isn't an answer to give up on.
    assert!(matches!(copy.append(&key(), &[record(3)], 1000).await, Err(LogError::Unavailable(_))));
    assert!(matches!(store.append(&key(), &[record(3)], 1).await, Err(LogError::Full { .. })));
}

#[tokio::test]
async fn a_password_is_never_printed() {
    let server = Server::start("everysec");
    let config = server.config("secret");
    assert!(!format!("{config:?}").contains(PASSWORD));
    let store = RedisStore::connect(config).await.unwrap();
    assert!(!format!("{store:?}").contains(PASSWORD));

    let wrong = "this-one-is-wrong";
    let config = RedisConfig { password: Some(wrong.to_owned()), ..server.config("secret") };
    let error = RedisStore::connect(config).await.unwrap_err();
    let LogError::Unavailable(source) = &error else { panic!("{error}") };
    assert!(!format!("{error} {error:?} {source}").contains(wrong));
    assert!(source.to_string().contains("WRONGPASS"), "{source}");
}

#[tokio::test]
async fn nobody_there_is_told_within_the_deadline() {
    let begun = Instant::now();
    let store = RedisStore::connect(RedisConfig::new("127.0.0.1", 1, "nobody")).await;
    assert!(matches!(store, Err(LogError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(RedisStore::lazy(RedisConfig::new("127.0.0.1", 1, "nobody")).is_ok());
    let braces = RedisStore::lazy(RedisConfig::new("127.0.0.1", 1, "{}"));
    assert!(matches!(braces, Err(LogError::Invalid(_))));
}
