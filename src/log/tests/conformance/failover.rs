//! What the Redis store keeps, and how soon it goes on, when another server becomes primary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hebb_log::{
    Claim, Claimed, Directory, Durability, EntryId, Log, LogError, Member, PartitionKey, RedisConfig, RedisStore,
    Replies, Reply, Tls,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::certificates::Certificates;
use crate::fleet::{Fleet, eventually, follows};
use crate::outage::{LONG, START, append_to, append_until, key, read_until, record};
use crate::server::{PASSWORD, Server};

/// When a server counts as lost. A machine that is busy lets a process wait for a second.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// The longest that nothing may be written: about twice what it takes.
const FAILOVER: Duration = Duration::from_secs(10);
/// A server that was primary is told what it is now after 8 s at the earliest.
const DEMOTION: Duration = Duration::from_secs(30);
const REPLICATED: Durability = Durability::Replicated { replicas: 1 };
const NO_WAIT: Duration = Duration::ZERO;

fn other() -> PartitionKey {
    PartitionKey { domain: "other".to_owned(), index: 0 }
}

fn records(numbers: std::ops::Range<u64>) -> Vec<hebb_log::Record> {
    numbers.map(record).collect()
}

async fn new_claim(store: &RedisStore, key: &PartitionKey) -> Claim {
    match store.claim(key, "worker-0", None, LONG).await.unwrap() {
        Claimed::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// Repeats a call until it isn't answered with `Unavailable`; returns how long that took.
async fn until_available<T>(limit: Duration, call: impl AsyncFn() -> Result<T, LogError>) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return (answer, begun.elapsed()),
            Err(error) => assert!(matches!(error, LogError::Unavailable(_)), "{error}"),
        }
        assert!(begun.elapsed() < limit, "unavailable for {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// All entries, as they are read from the beginning.
async fn all(store: &RedisStore, key: &PartitionKey) -> Vec<(EntryId, u64)> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(START, |(id, _)| *id);
        let read = store.read(key, after, 10_000, NO_WAIT).await.unwrap();
        if read.is_empty() {
            return all;
        }
        all.extend(read.into_iter().map(|(id, entry)| (id, u64::from_le_bytes(entry.entry[..].try_into().unwrap()))));
    }
}

/// Everything that was acknowledged is there, in its order, and nothing is there twice.
fn check_ledger(acknowledged: &BTreeMap<EntryId, u64>, kept: &[(EntryId, u64)]) {
    let by_id: BTreeMap<EntryId, u64> = kept.iter().copied().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|(id, number)| by_id.get(id) != Some(number)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(kept.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "one appender's numbers are in its order");
    assert_eq!(kept.iter().map(|(_, number)| number).collect::<BTreeSet<_>>().len(), kept.len());
}

/// Replies come again by themselves.
async fn hears(store: &RedisStore, replies: &mut mpsc::Receiver<Vec<Reply>>, gateway: &str) {
    let heard = async {
        loop {
            let sent = store.send(gateway, vec![Reply { request: 1, body: Vec::new() }]).await;
            if sent.is_ok() && timeout(Duration::from_millis(100), replies.recv()).await.is_ok_and(|got| got.is_some())
            {
                return;
            }
        }
    };
    timeout(Duration::from_secs(10), heard).await.expect("the subscription follows");
}

/// The position of the primary among the servers; for a moment there may be none, or two.
fn primary(servers: &[Server]) -> Option<usize> {
    let primaries: Vec<usize> = (0..servers.len()).filter(|n| servers[*n].is_primary()).collect();
    (primaries.len() == 1).then(|| primaries[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_primary_is_killed() {
    let mut fleet = Fleet::sentinel(DOWN_AFTER, false);
    let store = fleet.store("killed", REPLICATED).await;
    let claim = new_claim(&store, &key()).await;
    let leads = store.campaign("coordinator-0", "a:1", LONG).await.unwrap();
    let mut replies = store.subscribe("gateway-0").await.unwrap();

    let (no_appends, no_reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let appending = tokio::spawn(append_until(store.clone(), Arc::clone(&no_appends)));
    let reading = tokio::spawn(read_until(store.clone(), Arc::clone(&no_reads)));
    sleep(Duration::from_millis(500)).await;
    store.renew(&claim, LONG).await.unwrap();
    let member = Member { id: "worker-0".to_owned(), report: "{}".to_owned() };
    store.beat(&member, DOWN_AFTER).await.unwrap();
    assert_eq!(store.members().await.unwrap().as_slice(), std::slice::from_ref(&member));
    fleet.servers[2].kill();
    let killed_at = Instant::now();
    let (_, took) = until_available(FAILOVER, async || store.append(&other(), &records(0..1), 100).await).await;
    println!("killed: a replicated append after {took:?}");
    assert!(killed_at.elapsed() < FAILOVER);
    // Nobody could beat meanwhile, so nobody is missing yet.
    assert_eq!(store.members().await.unwrap(), [member]);
    // The claim was replicated, and holds off others; its owner begins anew.
    assert!(matches!(store.claim(&key(), "worker-1", None, LONG).await.unwrap(), Claimed::Held { .. }));
    assert!(matches!(store.renew(&claim, LONG).await, Err(LogError::Fenced)));
    let again = store.claim(&key(), "worker-0", Some(&claim), LONG).await.unwrap();
    let Claimed::New(again) = again else { panic!("{again:?}") };
    assert!(claim.epoch < again.epoch);
    assert!(matches!(store.checkpoint(&claim, START, b"stale", None).await, Err(LogError::Fenced)));
    assert!(matches!(store.claim(&key(), "worker-0", Some(&again), LONG).await.unwrap(), Claimed::Resumed(_)));
    assert_eq!(store.campaign("coordinator-0", "a:1", LONG).await.unwrap().leader, leads.leader);
    hears(&store, &mut replies, "gateway-0").await;
    println!("killed: replies again after {:?}", killed_at.elapsed());

    sleep(Duration::from_millis(500)).await;
    no_appends.store(true, Ordering::Relaxed);
    let acknowledged = appending.await.unwrap();
    no_reads.store(true, Ordering::Relaxed);
    let read = timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    let kept = all(&store, &key()).await;
    check_ledger(&acknowledged, &kept);
    assert!(acknowledged.keys().all(|id| read.contains_key(id)), "a blocked reader follows and misses nothing");
    println!("killed: {} acknowledged, {} kept, {} read", acknowledged.len(), kept.len(), read.len());

    let (_, silent) = until_available(FAILOVER, async || match store.members().await?.is_empty() {
        true => Ok(()),
        false => Err(LogError::Unavailable("still a member".into())),
    })
    .await;
    println!("killed: a silent member was dropped after {:?}", killed_at.elapsed().max(silent));
    store.checkpoint(&again, kept.last().unwrap().0, b"state", None).await.unwrap();
    assert_eq!(store.status(&key()).await.unwrap().length, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_ahead_of_the_new_primary_starts_from_what_survived() {
    let mut fleet = Fleet::sentinel(DOWN_AFTER, false);
    let store = fleet.store("ahead", REPLICATED).await;
    let claim = new_claim(&store, &key()).await;
    let ids = store.append(&key(), &records(0..10), 100).await.unwrap();
    store.checkpoint(&claim, ids[4], b"five", None).await.unwrap();

    // The replicas hear nothing more from the primary, which goes on as one without replicas would.
    for replica in &fleet.servers[..2] {
        replica.ask(PASSWORD, &["CONFIG", "SET", "masterauth", "wrong"]);
    }
    let old = &fleet.servers[2];
    old.ask(PASSWORD, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    old.ask(PASSWORD, &["CLIENT", "KILL", "TYPE", "replica"]);
    let refused = store.append(&key(), &records(10..13), 100).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    let ahead = all(&store, &key()).await;
    assert_eq!(ahead.iter().map(|(_, number)| *number).collect::<Vec<_>>(), (5..13).collect::<Vec<_>>());
    // A checkpoint beyond the log that will be: stored and trimmed by the old primary alone.
    let stored = store.checkpoint(&claim, ahead[7].0, b"thirteen", None).await;
    assert!(matches!(stored, Err(LogError::Unavailable(_))), "{stored:?}");
    assert_eq!(store.load(&key()).await.unwrap().unwrap().state, b"thirteen");
    // A claim that only the old primary knows of is none, and holds off nobody.
    let refused = store.claim(&other(), "worker-0", None, LONG).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.status(&other()).await.unwrap().owner, None);
    assert!(matches!(store.renew(&claim, LONG).await, Err(LogError::Unavailable(_))));

    fleet.servers[2].kill();
    for replica in &fleet.servers[..2] {
        replica.ask(PASSWORD, &["CONFIG", "SET", "masterauth", PASSWORD]);
    }
    let (ids_after, took) =
        until_available(FAILOVER * 2, async || store.append(&key(), &records(20..22), 100).await).await;
    println!("ahead: appends again after {took:?}");
    // The owner still believes in its claim; whatever it tries, it's told to begin anew.
    assert!(matches!(store.renew(&claim, LONG).await, Err(LogError::Fenced)));
    assert!(matches!(store.progress(&claim, 8).await, Err(LogError::Fenced)));
    assert!(matches!(store.checkpoint(&claim, ahead[7].0, b"thirteen", None).await, Err(LogError::Fenced)));
    store.release(&claim).await.unwrap();
    let again = new_claim(&store, &key()).await;
    let checkpoint = store.load(&key()).await.unwrap().unwrap();
    assert_eq!((checkpoint.position, checkpoint.state), (ids[4], b"five".to_vec()));
    let replayed = all(&store, &key()).await;
    assert_eq!(replayed.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 20, 21]);
    assert_eq!(replayed.iter().map(|(id, _)| *id).skip(5).collect::<Vec<_>>(), ids_after);

    // The old primary comes back with its own end of the log, and gives it up.
    fleet.servers[2].restart();
    let demoted =
        tokio::task::block_in_place(|| eventually(DEMOTION, "the old primary follows", || follows(&fleet.servers[2])));
    println!("ahead: the old primary follows after {demoted:?}");
    until_available(FAILOVER, async || {
        let again = match store.claim(&key(), "worker-0", Some(&again), LONG).await? {
            Claimed::New(again) | Claimed::Resumed(again) => again,
            held => panic!("{held:?}"),
        };
        store.checkpoint(&again, ids_after[1], b"all", None).await
    })
    .await;
    assert!(store.read(&key(), START, 100, NO_WAIT).await.unwrap().is_empty());
    let length = format!("hebb:{{ahead/{}}}:log", key());
    let kept = || fleet.servers[2].ask(PASSWORD, &["XLEN", &length]).trim().to_owned();
    tokio::task::block_in_place(|| eventually(FAILOVER, "its tail is gone", || kept() == "0"));
    assert!(primary(&fleet.servers).is_some_and(|primary| primary != 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_and_not_believed_afterwards() {
    let fleet = Fleet::sentinel(DOWN_AFTER, true);
    // The client checks the servers' certificates, and they check its.
    let config = fleet.config("hangs", Durability::EverySecond);
    let nameless = config.tls.clone().map(|tls| Tls { identity: None, ..tls });
    let refused = [Some(Certificates::new().client()), nameless, Some(Tls::default()), None]
        .map(|tls| RedisStore::connect(RedisConfig { tls, ..config.clone() }));
    for refused in futures::future::join_all(refused).await {
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    }
    let store = fleet.store("hangs", Durability::EverySecond).await;
    let claim = new_claim(&store, &key()).await;
    let first = store.append(&key(), &records(0..1), 100).await.unwrap()[0];
    let mut replies = store.subscribe("gateway-0").await.unwrap();
    fleet.servers[2].signal("STOP");
    let begun = Instant::now();
    let (key, limit) = (key(), Duration::from_secs(15));
    let appended = until_available(limit, async || store.append(&key, &records(1..2), 100).await);
    let read = until_available(limit, async || match store.read(&key, first, 10, Duration::from_millis(500)).await {
        Ok(read) if read.is_empty() => Err(LogError::Unavailable("nothing yet".into())),
        other => other,
    });
    let ((_, appended), (read, _)) = tokio::join!(appended, read);
    println!("hangs: appends again after {appended:?}, read after {:?}", begun.elapsed());
    assert!(read.iter().all(|(_, entry)| *entry == record(1)));
    // Without replication the owner's memory is the best there is, and it keeps its claim.
    store.renew(&claim, LONG).await.unwrap();
    assert!(matches!(store.claim(&key, "worker-0", Some(&claim), LONG).await.unwrap(), Claimed::Resumed(_)));
    fleet.servers[2].signal("CONT");
    hears(&store, &mut replies, "gateway-0").await;
    for number in 2..40 {
        until_available(limit, async || store.append(&key, &records(number..number + 1), 1_000).await).await;
        sleep(Duration::from_millis(50)).await;
    }
    let kept: BTreeSet<u64> = all(&store, &key).await.into_iter().map(|(_, number)| number).collect();
    assert!((2..40).all(|number| kept.contains(&number)), "{kept:?}");
    tokio::task::block_in_place(|| eventually(DEMOTION, "the old primary follows", || follows(&fleet.servers[2])));
    assert_eq!(all(&store, &key).await.len(), kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_of_a_cluster_goes_on_at_its_replica() {
    let mut fleet = Fleet::cluster(DOWN_AFTER, false);
    let store = fleet.store("shards", REPLICATED).await;
    let unreplicated = fleet.store("shards", Durability::EverySecond).await;
    let keys: Vec<PartitionKey> = (0..8).map(|index| PartitionKey { domain: "sharded".to_owned(), index }).collect();
    let mut claims = Vec::new();
    for key in &keys {
        claims.push(new_claim(&store, key).await);
    }
    let mut replies = Vec::new();
    for gateway in 0..4 {
        replies.push(store.subscribe(&format!("gateway-{gateway}")).await.unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let appending: Vec<_> = keys
        .iter()
        .map(|key| {
            let (key, store, stop) = (key.clone(), store.clone(), Arc::clone(&stop));
            tokio::spawn(async move { append_to(&key, store, stop).await })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    move_slot(&fleet.servers, &format!("hebb:{{shards/{}}}:log", keys[0]));
    for key in &keys {
        until_available(FAILOVER, async || store.append(&other_of(key), &records(0..1), 1_000).await).await;
    }
    let lost = (0..6).find(|n| fleet.servers[*n].is_primary()).unwrap();
    fleet.servers[lost].kill();
    let mut slowest = Duration::ZERO;
    for key in &keys {
        let append = async || unreplicated.append(&other_of(key), &records(1..2), 1_000).await;
        slowest += until_available(FAILOVER, append).await.1;
    }
    println!("shards: a write to each partition after {slowest:?}");
    for (gateway, replies) in replies.iter_mut().enumerate() {
        hears(&store, replies, &format!("gateway-{gateway}")).await;
    }
    // The new primary has no replica until the old one is back as that.
    fleet.servers[lost].restart();
    let back = tokio::task::block_in_place(|| {
        eventually(DEMOTION, "the old primary follows", || follows(&fleet.servers[lost]))
    });
    println!("shards: the old primary follows after {back:?}");
    let mut renewed = 0;
    for (key, claim) in keys.iter().zip(&claims) {
        let (again, _) =
            until_available(FAILOVER, async || store.claim(key, "worker-0", Some(claim), LONG).await).await;
        match again {
            Claimed::Resumed(again) => assert_eq!(again, *claim),
            Claimed::New(again) => {
                renewed += 1;
                assert!(claim.epoch < again.epoch);
            }
            Claimed::Held { .. } => panic!("{key} is held by its own owner"),
        }
    }
    assert!(renewed < keys.len(), "only the partitions of one shard were touched");
    for key in &keys {
        until_available(FAILOVER, async || store.append(&other_of(key), &records(2..3), 1_000).await).await;
    }
    sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    for (key, appending) in keys.iter().zip(appending) {
        let acknowledged = timeout(Duration::from_secs(10), appending).await.unwrap().unwrap();
        let kept = all(&store, key).await;
        println!("shards: {key}: {} acknowledged, {} kept", acknowledged.len(), kept.len());
        check_ledger(&acknowledged, &kept);
    }
}

/// A partition in which nobody else appends.
fn other_of(key: &PartitionKey) -> PartitionKey {
    PartitionKey { domain: "beside".to_owned(), index: key.index }
}

/// Moves the slot of a key from the primary that holds it to another, as resharding does, slowly enough to be met half-way.
fn move_slot(servers: &[Server], key: &str) {
    let ask = |server: &Server, command: &[&str]| server.ask(PASSWORD, command).trim().to_owned();
    let slot = ask(&servers[0], &["CLUSTER", "KEYSLOT", key]);
    let keys = |server: &Server| ask(server, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    let mut primaries: Vec<&Server> = servers.iter().filter(|server| server.is_primary()).collect();
    primaries.sort_by_key(|server| keys(server).is_empty());
    let (from, to) = (primaries[0], primaries[1]);
    let (from_id, to_id) = (ask(from, &["CLUSTER", "MYID"]), ask(to, &["CLUSTER", "MYID"]));
    assert_eq!(ask(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(ask(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    std::thread::sleep(Duration::from_millis(300));
    let (port, moving) = (to.port.to_string(), keys(from));
    assert!(!moving.is_empty());
    let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "AUTH", PASSWORD, "KEYS"];
    migrate.extend(moving.lines());
    assert_eq!(ask(from, &migrate), "OK");
    std::thread::sleep(Duration::from_millis(300));
    for server in [to, from] {
        assert_eq!(ask(server, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
}
