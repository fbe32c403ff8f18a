//! What a local store keeps when it's closed, and when its process dies.

use std::time::Duration;

use hebb_log::{
    Claimed, Directory, Domain, Durability, EntryId, Kept, LocalConfig, LocalStore, Log, OpenError, PartitionKey,
    Record, ReplyTo,
};
use redb::{TableDefinition, TableHandle};

const START: EntryId = EntryId { at_ms: 0, seq: 0 };
const LONG: Duration = Duration::from_secs(60);
const LOG: TableDefinition<'_, (u32, u64, u64), &[u8]> = TableDefinition::new("log");

fn key(index: u32) -> PartitionKey {
    PartitionKey { domain: "kept".to_owned(), index }
}

fn records(count: usize) -> Vec<Record> {
    (0..count).map(|n| Record { entry: n.to_string().into(), reply_to: None }).collect()
}

/// Fills a store, hands it to `end`, opens what that returns and looks for everything.
async fn check(config: LocalConfig, end: impl FnOnce(LocalStore, &std::path::Path) -> std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path().join("data"), config).await.unwrap();
    let domain = Domain {
        name: "kept".to_owned(),
        partitions: 2,
        config: hebb_engine::PartitionConfig::new(hebb_engine::Task::Patterns),
    };
    store.declare(&domain).await.unwrap();
    let ids = store.append(&key(0), &records(10), 10).await.unwrap();
    let others = store.append(&key(1), &records(3), 10).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(0), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    store.checkpoint(&claim, ids[5], b"state", None).await.unwrap();
    store.progress(&claim, 2).await.unwrap();

    let next = end(store, directory.path());
    let store = LocalStore::open(next, config).await.unwrap();
    assert_eq!(store.domains().await.unwrap(), vec![domain]);
    let left = store.read(&key(0), START, 100, Duration::ZERO).await.unwrap();
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[6..]);
    let left = store.read(&key(1), others[0], 100, Duration::ZERO).await.unwrap();
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), others[1..]);
    let checkpoint = store.load(&key(0)).await.unwrap().unwrap();
    assert_eq!((checkpoint.position, checkpoint.epoch, checkpoint.state), (ids[5], claim.epoch, b"state".to_vec()));
    let status = store.status(&key(0)).await.unwrap();
    assert_eq!((status.waiting, status.length, status.owner, status.epoch), (4, 4, None, claim.epoch));
    assert!(ids[9] < store.append(&key(0), &records(1), 10).await.unwrap()[0]);
    let resumed = store.claim(&key(0), "worker-0", Some(&claim), LONG).await.unwrap();
    assert_eq!(resumed, Claimed::Resumed(claim.clone()));
    store.release(&claim).await.unwrap();
    let new = store.claim(&key(0), "worker-0", None, LONG).await.unwrap();
    assert!(matches!(new, Claimed::New(new) if claim.epoch < new.epoch));
}

#[tokio::test]
async fn a_closed_store_keeps_everything() {
    for durability in [Durability::Async, Durability::EverySecond] {
        check(LocalConfig { durability }, |store, directory| {
            drop(store);
            directory.join("data")
        })
        .await;
    }
}

#[tokio::test]
async fn a_killed_process_has_everything_on_the_disk() {
    // What the file system holds while the store is open is what a SIGKILL would leave.
    check(LocalConfig::default(), |store, directory| {
        std::fs::create_dir(directory.join("copy")).unwrap();
        std::fs::copy(directory.join("data/hebb.redb"), directory.join("copy/hebb.redb")).unwrap();
        drop(store);
        directory.join("copy")
    })
    .await;
}

#[tokio::test]
async fn unsynced_commits_reach_the_disk_after_a_second() {
    check(LocalConfig { durability: Durability::Async }, |store, directory| {
        std::thread::sleep(Duration::from_millis(1700));
        std::fs::create_dir(directory.join("copy")).unwrap();
        std::fs::copy(directory.join("data/hebb.redb"), directory.join("copy/hebb.redb")).unwrap();
        drop(store);
        directory.join("copy")
    })
    .await;
}

#[tokio::test]
async fn an_emptied_log_gives_no_id_twice_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(0), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    let ahead = EntryId { at_ms: u64::from(u32::MAX) * 1000, seq: 3 };
    store.checkpoint(&claim, ahead, b"", None).await.unwrap();
    drop(store);
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    assert!(ahead < store.append(&key(0), &records(1), 10).await.unwrap()[0]);
}

#[tokio::test]
async fn a_fallback_is_there_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    let ids = store.append(&key(0), &records(5), 10).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(0), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    store.checkpoint(&claim, ids[0], b"old", None).await.unwrap();
    let kept = Kept { position: ids[0], since: ids[2], entries: 2, bytes: 2 };
    store.checkpoint(&claim, ids[2], b"new", Some(kept)).await.unwrap();
    let fallback = store.fallback(&key(0)).await.unwrap();
    drop(store);
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    assert_eq!(store.load(&key(0)).await.unwrap().unwrap().kept, Some(kept));
    assert!(fallback.as_ref().is_some_and(|fallback| fallback.state == b"old"));
    assert_eq!(store.fallback(&key(0)).await.unwrap(), fallback);
    let status = store.status(&key(0)).await.unwrap();
    assert_eq!((status.waiting, status.length), (2, 2));
    assert_eq!(store.read(&key(0), ids[0], 10, Duration::ZERO).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_file_from_before_there_were_fallbacks_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    let ids = store.append(&key(0), &records(5), 10).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(0), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    store.checkpoint(&claim, ids[0], b"old", None).await.unwrap();
    drop(store);
    {
        let file = redb::Database::open(directory.path().join("hebb.redb")).unwrap();
        let write = file.begin_write().unwrap();
        for table in write.list_tables().unwrap().collect::<Vec<_>>() {
            if ["fallbacks", "kept"].contains(&table.name()) {
                assert!(write.delete_table(table).unwrap());
            }
        }
        write.commit().unwrap();
    }
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    let newest = store.load(&key(0)).await.unwrap().unwrap();
    assert_eq!((newest.position, newest.state.as_slice(), newest.kept), (ids[0], &b"old"[..], None));
    let kept = Kept { position: ids[0], since: ids[2], entries: 2, bytes: 2 };
    store.checkpoint(&claim, ids[2], b"new", Some(kept)).await.unwrap();
    assert_eq!(store.fallback(&key(0)).await.unwrap().unwrap().state, b"old");
}

#[tokio::test]
async fn a_directory_is_private_and_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = LocalStore::open(&path, LocalConfig::default()).await.unwrap();
    let second = LocalStore::open(&path, LocalConfig::default()).await.unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("hebb.redb"))), (0o700, 0o600));
    }
    let clone = store.clone();
    drop(store);
    assert!(LocalStore::open(&path, LocalConfig::default()).await.is_err(), "a clone holds it");
    drop(clone);
    LocalStore::open(&path, LocalConfig::default()).await.unwrap();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = LocalConfig { durability: Durability::Replicated { replicas: 1 } };
    assert!(matches!(LocalStore::open(directory.path(), config).await, Err(OpenError::Replicated)));
    std::fs::write(directory.path().join("hebb.redb"), b"something else entirely").unwrap();
    let odd = LocalStore::open(directory.path(), LocalConfig::default()).await;
    assert!(matches!(odd, Err(OpenError::Database(_))), "{odd:?}");
}

#[tokio::test]
async fn a_log_of_an_earlier_version_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    let Claimed::New(claim) = store.claim(&key(0), "worker-0", None, LONG).await.unwrap() else { panic!("new") };
    drop(store);
    // A value had one record then: the length of the name and one, the name, the request, the entry.
    let values = [b"\0first".to_vec(), b"\x0agateway-0\x07\0\0\0\0\0\0\0second".to_vec(), b"\0".to_vec()];
    let reply_to = Some(ReplyTo { gateway: "gateway-0".into(), request: 7 });
    let wanted = [("first", None), ("second", reply_to), ("", None)];
    let mut wanted: Vec<Record> =
        wanted.into_iter().map(|(entry, reply_to)| Record { entry: entry.into(), reply_to }).collect();
    {
        let file = redb::Database::open(directory.path().join("hebb.redb")).unwrap();
        let write = file.begin_write().unwrap();
        let mut log = write.open_table(LOG).unwrap();
        for (seq, value) in (0..).zip(&values) {
            log.insert((0, 1_000, seq), value.as_slice()).unwrap();
        }
        drop(log);
        write.commit().unwrap();
    }
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    assert_eq!(store.status(&key(0)).await.unwrap().length, 3);
    let ids = store.append(&key(0), &records(100), 200).await.unwrap();
    wanted.extend(records(100));
    drop(store);

    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    assert_eq!(store.status(&key(0)).await.unwrap().length, 103);
    let read = store.read(&key(0), START, 200, Duration::ZERO).await.unwrap();
    assert!(read.into_iter().map(|(_, record)| record).eq(wanted.clone()));
    store.checkpoint(&claim, EntryId { at_ms: 1_000, seq: 1 }, b"old", None).await.unwrap();
    assert_eq!(store.status(&key(0)).await.unwrap().length, 101);
    // Of a value that has the position in its midst the rest stays.
    store.checkpoint(&claim, ids[41], b"new", None).await.unwrap();
    drop(store);
    let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
    assert_eq!(store.status(&key(0)).await.unwrap().length, 58);
    let left = store.read(&key(0), START, 200, Duration::ZERO).await.unwrap();
    assert!(left.iter().map(|(id, _)| *id).eq(ids[42..].iter().copied()));
    assert!(left.into_iter().map(|(_, record)| record).eq(wanted[45..].to_vec()));
}
