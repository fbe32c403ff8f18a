//! A Redis that has reached its memory limit: it takes no more entries, and everything that makes room again goes on.

use std::time::Duration;

use hebb_engine::{PartitionConfig, Task};
use hebb_log::{
    Assignment, Batch, Claim, Claimed, Directory, Domain, EntryId, History, Log, LogError, Member, PartitionKey,
    Record, RedisStore, Replies, Reply, Samples, Tier,
};

use crate::server::{PASSWORD, Server};

const LONG: Duration = Duration::from_secs(60);
const LIMIT: &str = "--maxmemory 32mb --maxmemory-policy noeviction";

fn key(index: u32) -> PartitionKey {
    PartitionKey { domain: "full".to_owned(), index }
}

fn domain(name: &str, task: Task) -> Domain {
    Domain { name: name.to_owned(), partitions: 1, config: PartitionConfig::new(task) }
}

async fn new_claim(store: &RedisStore, index: u32) -> Claim {
    match store.claim(&key(index), "worker-0", None, LONG).await.unwrap() {
        Claimed::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, LogError>) -> bool {
    match &answer {
        Err(LogError::Unavailable(why)) if why.to_string().contains("OOM") => true,
        _ => panic!("{answer:?}"),
    }
}

/// Appends until nothing more is taken; how many entries that were, and the last of them.
async fn fill(store: &RedisStore, key: &PartitionKey) -> (u64, EntryId) {
    let (mut count, mut last) = (0, EntryId::default());
    // The last bit of room is for entries that are small.
    for bytes in [256 << 10, 4 << 10, 1] {
        let record = Record { entry: vec![7; bytes].into(), reply_to: None };
        loop {
            match store.append(key, std::slice::from_ref(&record), u64::MAX).await {
                Ok(ids) => (count, last) = (count + 1, ids[0]),
                refused => {
                    assert!(is_refused(refused));
                    break;
                }
            }
        }
    }
    (count, last)
}

/// Lowers the limit, so that Redis is full whatever buffers it gives back meanwhile.
fn squeeze(server: &Server) {
    assert_eq!(server.ask(PASSWORD, &["CONFIG", "SET", "maxmemory", "24mb"]).trim(), "OK");
}

fn used(server: &Server) -> u64 {
    server.figure("used_memory").and_then(|used| used.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_room_in_a_full_redis_is_never_refused() {
    let mut server = Server::start_with("everysec", LIMIT, None);
    let store = server.store("full").await;
    let claim = new_claim(&store, 0).await;
    store.checkpoint(&claim, EntryId::default(), b"nothing", None).await.unwrap();
    let known = store.declare(&domain("known", Task::Classification)).await.unwrap();
    let (count, last) = fill(&store, &key(0)).await;
    squeeze(&server);

    // What makes it grow is refused.
    assert!(is_refused(store.declare(&domain("further", Task::Patterns)).await));
    let other = new_claim(&store, 1).await;
    assert!(is_refused(store.checkpoint(&other, EntryId::default(), &[1; 5 << 20], None).await));
    assert_eq!(store.load(&key(1)).await.unwrap(), None);
    // What is there already is told, and may be changed.
    assert_eq!(store.declare(&known).await.unwrap(), known);
    store.configure(&known).await.unwrap();

    // After a restart nobody has a lease, and the members' time begins anew.
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.restart();
        server
    })
    .await
    .unwrap();
    squeeze(&server);
    let leads = store.campaign("coordinator-0", "a:1", LONG).await.unwrap();
    for id in ["worker-0", "gateway-0"] {
        store.beat(&Member { id: id.to_owned(), report: "x".repeat(1_000) }, LONG).await.unwrap();
    }
    assert_eq!(store.members().await.unwrap().len(), 2);
    assert_eq!(store.campaign("coordinator-0", "a:1", LONG).await.unwrap(), leads);
    let assignment = Assignment { version: 1, owners: vec![(key(0), "worker-0".to_owned())] };
    store.assign(leads.term, &assignment).await.unwrap();
    store.note(leads.term, "meta", b"a note").await.unwrap();
    let batch = Batch { at: 0, series: vec![("a".to_owned(), Samples { count: 1, min: 1.0, max: 1.0, sum: 1.0 })] };
    assert!(is_refused(store.record(leads.term, Tier::Fine, &batch).await));
    let mut replies = store.subscribe("gateway-0").await.unwrap();
    store.send("gateway-0", vec![Reply { request: 1, body: vec![0; 1_000] }]).await.unwrap();
    assert_eq!(replies.recv().await.unwrap().len(), 1);

    let Claimed::Resumed(claim) = store.claim(&key(0), "worker-0", Some(&claim), LONG).await.unwrap() else {
        panic!("another owner");
    };
    store.renew(&claim, LONG).await.unwrap();
    store.progress(&claim, 1).await.unwrap();
    assert_eq!(store.status(&key(0)).await.unwrap().waiting, count - 1);
    assert!(!Log::read(&store, &key(0), EntryId::default(), 10, Duration::ZERO).await.unwrap().is_empty());
    let was = used(&server);
    store.checkpoint(&claim, last, &[1; 5 << 20], None).await.unwrap();

    assert_eq!(store.status(&key(0)).await.unwrap().length, 0);
    assert_eq!(store.load(&key(0)).await.unwrap().unwrap().state.len(), 5 << 20);
    assert!(used(&server) < was / 2, "{} after {was}", used(&server));
    let (more, _) = fill(&store, &key(0)).await;
    assert!(more > 32, "{more} entries");
    store.release(&claim).await.unwrap();
}

/// The checkpoint that trims may be a fallback's last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_gives_a_fallback_up() {
    let server = Server::start_with("everysec", LIMIT, None);
    let store = server.store("fallback").await;
    let claim = new_claim(&store, 0).await;
    let first = store.append(&key(0), &[Record { entry: vec![1].into(), reply_to: None }], 10).await.unwrap()[0];
    store.checkpoint(&claim, first, &[1; 5 << 20], None).await.unwrap();
    let kept = |entries| hebb_log::Kept { position: first, since: first, entries, bytes: 1 };
    let second = store.append(&key(0), &[Record { entry: vec![1].into(), reply_to: None }], 10).await.unwrap()[0];
    store.checkpoint(&claim, second, &[2; 5 << 20], Some(kept(1))).await.unwrap();
    assert!(store.fallback(&key(0)).await.unwrap().is_some());

    let (count, last) = fill(&store, &key(0)).await;
    squeeze(&server);
    store.checkpoint(&claim, last, &[3; 5 << 20], Some(kept(count + 1))).await.unwrap();
    assert_eq!(store.fallback(&key(0)).await.unwrap(), None);
    assert_eq!(store.status(&key(0)).await.unwrap().length, 0);
    assert_eq!(store.load(&key(0)).await.unwrap().unwrap().state, [3; 5 << 20]);
    assert!(fill(&store, &key(0)).await.0 > 32);
}
