//! How long the checkpoint of an older layout is kept, on simulated time.

use std::time::Duration;

use hebb_engine::{Entry, EntryId, Governance, Partition, PartitionConfig, Query, Task};
use hebb_log::{Assignment, Claimed, Directory, Domain, Log, PartitionKey, Record};
use hebb_node::worker::{Worker, WorkerOptions};
use hebb_node::{Store, stop_channel};
use hebb_simulate::Server;
use tokio::time::sleep;

/// A state in the layout before this one.
const OLD: &[u8] = include_bytes!("../../../engine/tests/version2/classification.snapshot");
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn a_fallback_ends_with_its_hour_although_nothing_happens_any_more() {
    let server = Server::new();
    let key = PartitionKey { domain: "d".to_owned(), index: 0 };
    let old = Partition::restore(OLD).unwrap().position();
    let config = PartitionConfig::new(Task::Classification);
    server.declare(&Domain { name: "d".to_owned(), partitions: 1, config }).await.unwrap();
    let Claimed::New(claim) = server.claim(&key, "test", None, DAY).await.unwrap() else { panic!("new") };
    server.checkpoint(&claim, old, OLD, None).await.unwrap();
    server.release(&claim).await.unwrap();
    let leads = server.campaign("coordinator-0", "coordinator-0:8000", DAY).await.unwrap();
    let owners = vec![(key.clone(), "worker-0".to_owned())];
    server.assign(leads.term, &Assignment { version: 1, owners }).await.unwrap();
    let options = WorkerOptions {
        id: "worker-0".to_owned(),
        checkpoint_interval: Duration::from_secs(5),
        governance: Governance::default(),
        max_queue_size: 1_000,
        skip_unreadable: false,
    };
    let worker = Worker::new(Store::new(server.clone()), options).unwrap();
    let (stopper, stop) = stop_channel();
    let running = tokio::spawn(async move { worker.run(stop).await });

    // Before there is a newer checkpoint the hour doesn't begin.
    sleep(2 * DAY / 24).await;
    assert_eq!(server.load(&key).await.unwrap().unwrap().position, old);
    let record = Record { entry: Entry::Query(Query::Statistics).encode().into(), reply_to: None };
    let ids = server.append(&key, &[record.clone(), record], 10).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let kept = server.load(&key).await.unwrap().unwrap().kept.expect("a fallback");
    assert_eq!((kept.position, kept.since), (old, ids[1]));
    sleep(Duration::from_secs(59 * 60)).await;
    let newest = server.load(&key).await.unwrap().unwrap();
    assert_eq!((newest.position, newest.kept), (ids[1], Some(kept)));
    assert_eq!(server.read(&key, EntryId::default(), 10, Duration::ZERO).await.unwrap().len(), 2);
    assert_eq!(server.status(&key).await.unwrap().length, 0);
    let held = server.held().state_bytes;
    sleep(Duration::from_secs(60)).await;
    let after = server.load(&key).await.unwrap().unwrap();
    assert_eq!((after.position, after.kept), (ids[1], None));
    assert!(after.state == newest.state);
    assert_eq!(server.fallback(&key).await.unwrap(), None);
    assert_eq!(server.read(&key, EntryId::default(), 10, Duration::ZERO).await.unwrap(), vec![]);
    assert_eq!(server.held().state_bytes, held - OLD.len() as u64);
    stopper.stop();
    running.await.unwrap();
}
