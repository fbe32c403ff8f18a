//! The workers of one process.

use hebb_api::{AutoscalingSpec, Duration as Span};
use hebb_engine::Task;
use hebb_node::{ClusterSettings, WorkerCount};
use serde_json::json;

use crate::server::Server;
use crate::support::{digest, event, id, settings};

/// Events of one stream.
const AT_ONCE: usize = 2_000;
/// Streams after which more workers must have come.
const STREAMS_MAX: usize = 400;

async fn workers(server: &Server) -> usize {
    let status = server.status.get("/api/v1/status").await;
    status.body["workers"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go_with_the_queue_and_every_event_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut scaling =
        AutoscalingSpec { min_replicas: 1, max_replicas: 3, queue_depth_per_worker: 1, ..AutoscalingSpec::default() };
    scaling.scale_down.stabilization = Span::from_secs(1);
    let count = WorkerCount::ByQueue { first: 1, scaling };
    let settings = ClusterSettings { workers: count, ..settings(&[("d", Task::Classification, 4)]) };
    let server = Server::start(directory.path(), settings).await;
    assert_eq!(workers(&server).await, 1);

    let mut sent = 0;
    while workers(&server).await < 3 {
        assert!(sent < STREAMS_MAX * AT_ONCE, "nobody came to help");
        let lines = (sent..sent + AT_ONCE).map(|number| {
            let mut event = event(number);
            event["key"] = json!(number.to_string());
            format!("{event}\n")
        });
        let answers = server.stream("d", lines.collect()).await;
        assert!(answers.iter().all(|answer| answer["error"].is_null()), "{answers:?}");
        sent += AT_ONCE;
    }
    server.status.until("/api/v1/status", |answer| answer.body["workers"].as_array().map(Vec::len) == Some(1)).await;

    let ids: Vec<String> = (0..sent).map(id).collect();
    let counts = server.api.counts("d").await;
    assert_eq!((counts["events"].as_u64(), &counts["appliedDigest"]), (Some(sent as u64), &json!(digest(&ids))));
    server.stop().await;
}
