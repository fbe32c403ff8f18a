//! Backups of a cluster that learns, and what they bring back.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hebb_engine::{Entry, Event, Features, Input, Label, Partition, PartitionConfig, Task};
use hebb_log::{
    Address, Claim, Claimed, Domain, LocalConfig, LocalStore, PartitionKey, Record, RedisConfig, RedisStore, Topology,
};
use hebb_node::Store;
use hebb_node::backup::{FolderError, RestoreError, TakeError, check, choose, list, prune, restore, take};
use jiff::Timestamp;
use serde_json::json;

use crate::server::Server;
use crate::support::{event, free_address, settings};

const LEASE: Duration = Duration::from_secs(10);

fn domain(name: &str, partitions: u32) -> Domain {
    Domain { name: name.to_owned(), partitions, config: PartitionConfig::new(Task::Classification) }
}

fn key(index: u32) -> PartitionKey {
    PartitionKey { domain: "d".to_owned(), index }
}

fn record(number: u64) -> Record {
    let event = Event {
        id: format!("event-{number}").into(),
        input: Input::Features(Features::Dense(vec![number as f64, (number % 7) as f64])),
        label: Some(Label::Class(if number.is_multiple_of(3) { "three" } else { "other" }.into())),
    };
    Record { entry: Entry::Event(event).encode().into(), reply_to: None }
}

async fn append(store: &Store, index: u32, numbers: std::ops::Range<u64>) {
    let records: Vec<Record> = numbers.map(record).collect();
    store.log.append(&key(index), &records, u64::MAX).await.unwrap();
}

async fn claim(store: &Store, index: u32) -> Claim {
    match store.log.claim(&key(index), "worker", None, LEASE).await.unwrap() {
        Claimed::New(claim) | Claimed::Resumed(claim) => claim,
        held @ Claimed::Held { .. } => panic!("{held:?}"),
    }
}

/// Applies what the log holds, as its owner would.
async fn replayed(store: &Store, index: u32) -> Partition {
    let mut partition = match store.log.load(&key(index)).await.unwrap() {
        Some(checkpoint) => Partition::restore(&checkpoint.state).unwrap(),
        None => Partition::new(domain("d", 2).config),
    };
    for (id, record) in store.log.read(&key(index), partition.position(), 10_000, Duration::ZERO).await.unwrap() {
        partition.apply(id, &Entry::decode(&record.entry).unwrap());
    }
    partition
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A store with a checkpoint, entries after it, and a partition that nobody has owned yet.
async fn learned(store: Store) -> Store {
    store.directory.declare(&domain("d", 2)).await.unwrap();
    append(&store, 0, 0..500).await;
    let owner = claim(&store, 0).await;
    let state = replayed(&store, 0).await;
    store.log.checkpoint(&owner, state.position(), &state.snapshot(), None).await.unwrap();
    append(&store, 0, 500..2_300).await;
    append(&store, 1, 0..40).await;
    store
}

fn local() -> Store {
    Store::new(LocalStore::in_memory().unwrap())
}

/// A real Redis, ended with this value; each name is a cluster of its own in it.
pub struct Redis {
    port: u16,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with more arguments.
    pub async fn start_with(more: &[&str]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_address().port());
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"])
            .arg(directory.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need a real Redis: apt-get install redis-server");
        let redis = Self { port, child, _directory: directory };
        RedisStore::connect(redis.config("ping")).await.unwrap();
        redis
    }

    fn config(&self, cluster: &str) -> RedisConfig {
        RedisConfig::of(Topology::Standalone(Address::new("127.0.0.1", self.port)), cluster)
    }

    pub fn store(&self, cluster: &str) -> Store {
        let store = RedisStore::lazy(self.config(cluster)).unwrap();
        Store::new(store.clone()).with_history(store)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn what_only_a_newer_version_can_read_is_not_left_out_of_a_backup_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let store = learned(local()).await;
    let unknown = Record { entry: vec![99, 1].into(), reply_to: None };
    store.log.append(&key(0), &[unknown], u64::MAX).await.unwrap();
    let error = take(&store, "c", folder.path(), at(0)).await.unwrap_err();
    assert!(matches!(&error, TakeError::State(of, _) if *of == key(0)), "{error}");
    assert!(list(folder.path()).unwrap().is_empty(), "a part of a backup is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_state_is_the_replayed_one_byte_for_byte() {
    byte_for_byte(local(), local()).await;
    let redis = Redis::start().await;
    byte_for_byte(redis.store("one"), redis.store("two")).await;
    // From a laptop into a cluster.
    byte_for_byte(local(), redis.store("three")).await;
}

async fn byte_for_byte(source: Store, target: Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = learned(source).await;
    let wanted = [replayed(&store, 0).await, replayed(&store, 1).await];
    let taken = take(&store, "ns.demo", folder.path(), at(0)).await.unwrap();
    assert_eq!(taken.partitions.iter().map(|partition| partition.events).collect::<Vec<_>>(), [2_300, 40]);
    assert_eq!(check(folder.path(), &taken.backup).unwrap(), taken);

    restore(&target, folder.path(), &taken.backup).await.unwrap();
    for (index, wanted) in wanted.iter().enumerate() {
        let restored = target.log.load(&key(index as u32)).await.unwrap().unwrap();
        assert!(restored.state == wanted.snapshot(), "partition {index}");
        assert_eq!(restored.position, wanted.position());
        let status = target.log.status(&key(index as u32)).await.unwrap();
        assert_eq!((status.length, status.owner), (0, None), "nothing waits and nobody owns");
    }
    assert_eq!(target.directory.domains().await.unwrap(), [domain("d", 2)]);
    // What comes next is read after what was restored, whatever this machine's clock says.
    append(&target, 0, 2_300..2_301).await;
    assert_eq!(replayed(&target, 0).await.statistics().events, 2_301);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_server_that_learns_holds_all_that_was_acknowledged_and_ids_survive() {
    let (data, copy, folder) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path(), settings(&[("d", Task::Classification, 2)])).await;
    for number in 0..200 {
        server.api.insist("d", &event(number)).await;
    }
    let before = server.api.counts("d").await;
    server.stop().await;
    {
        let store = Store::new(reopened(data.path()).await);
        take(&store, "local", folder.path(), at(0)).await.unwrap();
    }
    {
        let store = Store::new(reopened(copy.path()).await);
        let newest = choose(folder.path(), None).unwrap();
        restore(&store, folder.path(), &newest.backup).await.unwrap();
    }
    let server = Server::start(copy.path(), settings(&[("d", Task::Classification, 2)])).await;
    assert_eq!(server.api.counts("d").await, before);
    let (retried, _) = server.api.insist("d", &event(7)).await;
    assert_eq!(retried["duplicate"], json!(true));
    server.api.insist("d", &event(200)).await;
    assert_eq!(server.api.counts("d").await["events"], json!(201));
    server.stop().await;
}

/// The file is free once the last task of a server has ended.
async fn reopened(directory: &Path) -> LocalStore {
    for _ in 0..100 {
        if let Ok(store) = LocalStore::open(directory, LocalConfig::default()).await {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} stays in use", directory.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_events_that_come_meanwhile_leave_no_gap() {
    no_gap(local()).await;
    let redis = Redis::start().await;
    no_gap(redis.store("busy")).await;
}

async fn no_gap(store: Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = learned(store).await;
    let acknowledged = Arc::new(AtomicU64::new(40));
    let (working, appended) = (store.clone(), acknowledged.clone());
    let enough = Arc::new(AtomicBool::new(false));
    let told = enough.clone();
    // An owner that applies and checkpoints far more often than one does, while events arrive.
    let owner = tokio::spawn(async move {
        let claim = claim(&working, 1).await;
        let mut partition = replayed(&working, 1).await;
        let mut round = 0;
        while !told.load(Ordering::SeqCst) {
            append(&working, 1, 40 + round * 20..60 + round * 20).await;
            appended.store(60 + round * 20, Ordering::SeqCst);
            for (id, record) in working.log.read(&key(1), partition.position(), 10_000, Duration::ZERO).await.unwrap() {
                partition.apply(id, &Entry::decode(&record.entry).unwrap());
            }
            working.log.checkpoint(&claim, partition.position(), &partition.snapshot(), None).await.unwrap();
            round += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        partition
    });
    let mut taken = Vec::new();
    for second in 0..200 {
        let before = acknowledged.load(Ordering::SeqCst);
        match take(&store, "ns.demo", folder.path(), at(second)).await {
            Ok(backup) => taken.push((before, backup)),
            // The owner was faster each time; who wants a backup tries again.
            Err(TakeError::Unsettled(_)) => continue,
            Err(error) => panic!("{error}"),
        }
        if taken.len() == 5 {
            break;
        }
    }
    assert_eq!(taken.len(), 5);
    enough.store(true, Ordering::SeqCst);
    let last = owner.await.unwrap();
    for (before, backup) in &taken {
        let events = backup.partitions[1].events;
        assert!((*before..=last.statistics().events).contains(&events), "{before} then {events}");
        // Without a gap, the count tells which ids these are.
        let digest = (0..events)
            .fold(0u64, |sum, number| sum.wrapping_add(hebb_engine::event_digest(&format!("event-{number}"))));
        assert_eq!(backup.partitions[1].applied_digest, digest, "of {events} events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_holds_something_is_left_as_it_is_and_a_run_that_was_killed_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = learned(local()).await;
    let backup = take(&store, "ns.demo", folder.path(), at(0)).await.unwrap().backup;
    let refused = restore(&store, folder.path(), &backup).await;
    assert!(matches!(refused, Err(RestoreError::NotEmpty(_))), "{refused:?}");

    let target = Store::new(LocalStore::in_memory().unwrap());
    target.directory.declare(&domain("other", 1)).await.unwrap();
    let refused = restore(&target, folder.path(), &backup).await;
    assert!(matches!(&refused, Err(RestoreError::NotEmpty(what)) if what.contains("other")), "{refused:?}");
    assert_eq!(target.log.load(&key(0)).await.unwrap(), None, "nothing was written");

    // As a run leaves it that was killed after the first partition: no domain is known yet.
    let target = Store::new(LocalStore::in_memory().unwrap());
    let owner = claim(&target, 0).await;
    let state = replayed(&store, 0).await;
    target.log.checkpoint(&owner, state.position(), &state.snapshot(), None).await.unwrap();
    target.log.release(&owner).await.unwrap();
    restore(&target, folder.path(), &backup).await.unwrap();
    assert_eq!(target.directory.domains().await.unwrap().len(), 1);
    restore(&target, folder.path(), &backup).await.unwrap();
    append(&target, 1, 40..41).await;
    let refused = restore(&target, folder.path(), &backup).await;
    assert!(matches!(refused, Err(RestoreError::NotEmpty(_))), "it has learned since: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_stay_and_what_is_broken_or_somebody_elses_is_never_removed_or_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let store = learned(local()).await;
    let mut names = Vec::new();
    for second in 0..4 {
        names.push(take(&store, "ns.demo", folder.path(), at(second)).await.unwrap().backup);
    }
    let path = |name: &str| folder.path().join(name);
    let mut bytes = std::fs::read(path(&names[3])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path(&names[3]), bytes).unwrap();
    std::fs::write(path("notes.hebb"), "not a backup").unwrap();
    std::fs::copy(path(&names[0]), path("kept-by-hand.hebb")).unwrap();
    let other = take(&store, "ns.other", folder.path(), at(9)).await.unwrap().backup;

    assert_eq!(prune(folder.path(), "ns.demo", 2).unwrap(), names[..1]);
    let left: Vec<String> = list(folder.path()).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(left.len(), 6, "{left:?}");
    let chosen = choose(folder.path(), None);
    assert!(matches!(chosen, Err(FolderError::Several { .. })), "{chosen:?}");
    std::fs::remove_file(path(&other)).unwrap();
    assert_eq!(choose(folder.path(), None).unwrap().backup, names[2], "the newest that is complete");
    let broken = choose(folder.path(), Some(&names[3]));
    assert!(matches!(broken, Err(FolderError::Backup { .. })), "{broken:?}");
    for bad in ["../x.hebb", ".hidden.hebb", "x"] {
        assert!(matches!(choose(folder.path(), Some(bad)), Err(FolderError::Name(_))), "{bad}");
    }
}
