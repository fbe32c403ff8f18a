//! Two workers over one store: partitions move, and nothing is lost on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hebb_engine::Task;
use hebb_log::{LocalConfig, LocalStore};
use hebb_node::{
    ClusterSettings, Identity, NodeError, Stop, Stopper, Store, run_coordinator, run_gateway, run_workers, stop_channel,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::{Api, digest, event, free_address, id, settings};

const PARTITIONS: u32 = 4;

/// Threads that end without being waited for, however the test ends.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// One worker with threads of its own, so that it can crash alone.
pub struct Worker {
    threads: Threads,
    stopper: Stopper,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Worker {
    pub fn start(store: &Store, name: &str) -> Self {
        Self::start_with(store, name, settings(&[]))
    }

    pub fn start_with(store: &Store, name: &str, settings: ClusterSettings) -> Self {
        let runtime = Runtime::new().unwrap();
        let (stopper, stop) = stop_channel();
        let (store, identity) = (store.clone(), identity(name));
        let task = runtime.spawn(async move { run_workers(store, &settings, identity, 1, stop).await });
        Self { threads: Threads(Some(runtime)), stopper, task }
    }

    /// Asks for the stop and waits until everything is handed over.
    pub async fn stop(self) {
        self.stopper.stop();
        self.task.await.unwrap().unwrap();
    }

    /// Ends all of its tasks where they are.
    pub fn crash(self) {
        drop(self.threads);
    }
}

pub fn identity(name: &str) -> Identity {
    let listen = free_address();
    Identity { id: name.to_owned(), listen, advertise: listen.to_string() }
}

/// A gateway and a coordinator.
struct Front {
    store: Store,
    api: Api,
    status: Api,
    // Asks for the stop when it is dropped.
    _stopper: Stopper,
}

impl Front {
    async fn start(directory: &std::path::Path) -> Self {
        let store = Store::new(LocalStore::open(directory, LocalConfig::default()).await.unwrap());
        let (stopper, stop) = stop_channel();
        let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
        let front = Self {
            store: store.clone(),
            api: Api::new(gateway.listen),
            status: Api::new(coordinator.listen),
            _stopper: stopper,
        };
        tokio::spawn(front_end(
            store,
            settings(&[("d", Task::Classification, PARTITIONS)]),
            gateway,
            coordinator,
            stop,
        ));
        front
    }

    /// Waits until exactly these workers own everything, each its share.
    async fn owned_by(&self, workers: &[&str]) -> Value {
        let wanted: BTreeSet<&str> = workers.iter().copied().collect();
        let settled = |status: &Value| {
            let domain = &status["domains"][0];
            let owners = domain["partitions"].as_array().map(|partitions| {
                partitions.iter().filter_map(|partition| partition["owner"].as_str()).collect::<Vec<_>>()
            });
            owners.is_some_and(|owners| {
                owners.len() == PARTITIONS as usize && owners.into_iter().collect::<BTreeSet<_>>() == wanted
            })
        };
        self.status.until("/api/v1/status", |answer| settled(&answer.body)).await.body
    }
}

pub async fn front_end(store: Store, settings: ClusterSettings, gateway: Identity, coordinator: Identity, stop: Stop) {
    let gateway = run_gateway(store.clone(), &settings, gateway, stop.clone());
    let coordinator = run_coordinator(store, &settings, coordinator, free_address(), None, stop);
    let (gateway, coordinator) = tokio::join!(gateway, coordinator);
    gateway.and(coordinator).unwrap();
}

/// Clients that send one event after the other, each until it is acknowledged.
struct Load {
    next: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Duration>>,
}

impl Load {
    fn start(api: &Api) -> Self {
        let (next, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = (0..8).map(|_| {
            let (api, next, end) = (api.clone(), next.clone(), end.clone());
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !end.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (answer, took) = api.insist("d", &event(number)).await;
                    assert_eq!(answer["id"], id(number));
                    longest = longest.max(took);
                }
                longest
            })
        });
        Self { clients: clients.collect(), next, end }
    }

    /// Waits until this many more events were sent.
    async fn more(&self, events: usize) {
        let (from, started) = (self.next.load(Ordering::Relaxed), Instant::now());
        while self.next.load(Ordering::Relaxed) < from + events {
            assert!(started.elapsed() < Duration::from_secs(30), "the events don't flow");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the load: how many events were acknowledged, and how long the slowest took.
    async fn end(self) -> (usize, Duration) {
        self.end.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for client in self.clients {
            longest = longest.max(client.await.unwrap());
        }
        (self.next.load(Ordering::Relaxed), longest)
    }
}

async fn check_each_once(api: &Api, events: usize) {
    let ids: Vec<String> = (0..events).map(id).collect();
    let counts = api.counts("d").await;
    assert_eq!((&counts["events"], &counts["appliedDigest"]), (&json!(events), &json!(digest(&ids))), "{counts}");
    assert_eq!(counts["labels"], json!(events), "each was learned once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_its_partitions_over_and_one_that_comes_gets_its_share() {
    let directory = tempfile::tempdir().unwrap();
    let front = Front::start(directory.path()).await;
    let a = Worker::start(&front.store, "a");
    let b = Worker::start(&front.store, "b");
    front.owned_by(&["a", "b"]).await;
    let load = Load::start(&front.api);
    load.more(200).await;
    a.stop().await;
    let status = front.owned_by(&["b"]).await;
    assert_eq!(status["unowned"], json!(0));
    load.more(200).await;
    let c = Worker::start(&front.store, "c");
    front.owned_by(&["b", "c"]).await;
    load.more(200).await;
    let (events, longest) = load.end().await;
    check_each_once(&front.api, events).await;
    assert!(
        longest < Duration::from_secs(5),
        "a planned move waits for no lease to end, but one event took {longest:?}"
    );
    tokio::join!(b.stop(), c.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_is_replaced_within_ten_seconds_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let front = Front::start(directory.path()).await;
    let a = Worker::start(&front.store, "a");
    let b = Worker::start(&front.store, "b");
    front.owned_by(&["a", "b"]).await;
    let load = Load::start(&front.api);
    load.more(400).await;
    let crashed = Instant::now();
    a.crash();
    front.owned_by(&["b"]).await;
    load.more(200).await;
    assert!(crashed.elapsed() < Duration::from_secs(10), "{:?} until the events flowed again", crashed.elapsed());
    let (events, longest) = load.end().await;
    assert!(longest > Duration::from_secs(1), "the crashed worker's lease was waited for, else it did not crash");
    assert!(longest < Duration::from_secs(10), "an event waited {longest:?}");
    check_each_once(&front.api, events).await;
    b.stop().await;
}
