//! A Redis that was filled while the workers were away.

use std::time::{Duration, Instant};

use hebb_engine::{Entry, Event, Features, Input, Label, Task};
use hebb_log::{LogError, PartitionKey, Record};
use hebb_node::stop_channel;
use serde_json::json;

use crate::backups::Redis;
use crate::handover::{Worker, front_end, identity};
use crate::support::{Api, digest, event, id, settings};

/// Records of one append.
const TOGETHER: usize = 500;

/// An entry as the gateway makes it of event `number`.
fn record(number: usize) -> Record {
    let event = event(number);
    let features = event["features"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let label = Some(Label::Class(event["label"].as_str().unwrap().into()));
    let event = Event { id: id(number).into(), input: Input::Features(Features::Dense(features)), label };
    Record { entry: Entry::Event(event).encode().into(), reply_to: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_filled_while_the_workers_were_away_recovers_by_itself() {
    let redis = Redis::start_with(&["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"]).await;
    let store = redis.store("full");
    let known = settings(&[("d", Task::Classification, 1)]);
    let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
    let (stopper, stop) = stop_channel();
    let api = Api::new(gateway.listen);
    let front = tokio::spawn(front_end(store.clone(), known.clone(), gateway, coordinator, stop));
    let worker = Worker::start(&store, "before");
    for number in 0..100 {
        api.insist("d", &event(number)).await;
    }
    worker.crash();
    stopper.stop();
    front.await.unwrap();

    let key = PartitionKey { domain: "d".to_owned(), index: 0 };
    let mut count = 100;
    for together in [TOGETHER, 1] {
        loop {
            let records: Vec<Record> = (count..count + together).map(record).collect();
            match store.log.append(&key, &records, u64::MAX).await {
                Ok(_) => count += together,
                Err(LogError::Unavailable(why)) if why.to_string().contains("OOM") => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(count > 10_000, "{count} events fill it");

    // Whoever comes has new hyperparameters and a new domain, which are growth, too.
    let mut changed = settings(&[("d", Task::Classification, 1), ("further", Task::Classification, 1)]);
    for domain in &mut changed.domains {
        domain.config.hyperparameters.exploration_rate /= 2.0;
    }
    let wanted = changed.domains[0].config.clone();
    let (gateway, coordinator) = (identity("gateway-1"), identity("coordinator-1"));
    let (stopper, stop) = stop_channel();
    let api = Api::new(gateway.listen);
    let front = tokio::spawn(front_end(store.clone(), changed, gateway, coordinator, stop));
    let worker = Worker::start(&store, "after");
    let started = Instant::now();
    while store.log.status(&key).await.unwrap().length > 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "still full: {:?}", store.log.status(&key).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    api.insist("d", &event(count)).await;
    api.insist("further", &event(0)).await;
    let counts = api.counts("d").await;
    let ids: Vec<String> = (0..=count).map(id).collect();
    assert_eq!((&counts["events"], &counts["appliedDigest"]), (&json!(count + 1), &json!(digest(&ids))), "{counts}");
    let domains = store.directory.domains().await.unwrap();
    assert_eq!(domains.iter().find(|domain| domain.name == "d").unwrap().config, wanted);
    worker.stop().await;
    stopper.stop();
    front.await.unwrap();
}
