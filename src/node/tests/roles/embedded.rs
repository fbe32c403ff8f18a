//! Learning, answering and refusing, with all roles in one process.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream;
use hebb_engine::Task;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::{digest, event, id, settings};

const LEARN: &str = "/v1/domains/d/infer-and-adapt";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_learned_and_the_ensemble_takes_over_after_the_cold_start() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    let mut paths = Vec::new();
    for number in 0..300 {
        let (answer, _) = server.api.insist("d", &event(number)).await;
        assert_eq!(answer["id"], id(number));
        assert_eq!((&answer["learned"], &answer["duplicate"]), (&json!(true), &json!(false)), "{answer}");
        paths.push(answer["path"].as_str().unwrap().to_owned());
    }
    assert!(paths[..100].iter().all(|path| path == "cold_start"), "{paths:?}");
    assert!(paths[100..].iter().all(|path| path == "ensemble"), "{paths:?}");
    let counts = server.api.counts("d").await;
    assert_eq!((&counts["events"], &counts["labels"]), (&json!(300), &json!(300)), "{counts}");
    assert!(counts["accuracy"].as_f64().unwrap() > 0.9, "{counts}");

    let asked = server.api.post("/v1/domains/d/infer", &json!({ "features": [1.0, -1.0, 0.0] })).await;
    assert_eq!((asked.status, &asked.body["prediction"]), (StatusCode::OK, &json!("up")), "{asked:?}");
    assert_eq!(server.api.counts("d").await, counts, "a question teaches nothing");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_id_is_answered_and_not_learned_twice() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 3)])).await;
    for name in ["plain", "with/slash", "with ünicode"] {
        let path = name.replace('/', "%2F").replace(' ', "%20").replace('ü', "%C3%BC");
        let event = json!({ "id": name, "features": { "a": 1, "b": "red", "c": null }, "label": true });
        let (first, _) = server.api.insist("d", &event).await;
        let once = server.api.counts("d").await;
        let (second, _) = server.api.insist("d", &event).await;
        assert_eq!((&first["duplicate"], &second["duplicate"]), (&json!(false), &json!(true)));
        assert_eq!(second["learned"], json!(false));
        assert_eq!(second["prediction"], first["prediction"]);
        let twice = server.api.counts("d").await;
        for count in ["events", "labels", "updates", "appliedDigest"] {
            assert_eq!(once[count], twice[count], "{count}");
        }
        let found = server.api.get(&format!("/v1/domains/d/events/{path}")).await;
        assert_eq!((found.status, &found.body["id"]), (StatusCode::OK, &json!(name)), "{found:?}");
        assert_eq!(found.body["labelled"], json!(true));
    }
    let missing = server.api.get("/v1/domains/d/events/never").await;
    assert_eq!((missing.status, &missing.body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_event")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_may_come_later_and_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 3)])).await;
    for key in [None, Some("customer-7")] {
        let name = format!("late-{key:?}");
        let (answer, _) = server.api.insist("d", &json!({ "id": name, "key": key, "features": [1, 2] })).await;
        assert_eq!(answer["learned"], json!(false));
        let before = server.api.counts("d").await;
        let label = json!({ "id": name, "key": key, "label": "up" });
        let joined = server.api.post("/v1/domains/d/feedback", &label).await;
        assert_eq!((joined.status, &joined.body["outcome"]), (StatusCode::OK, &json!("joined")), "{joined:?}");
        let after = server.api.counts("d").await;
        assert_eq!(after["labels"].as_u64(), before["labels"].as_u64().map(|labels| labels + 1));
        let again = server.api.post("/v1/domains/d/feedback", &label).await;
        assert_eq!((again.status, &again.body["outcome"]), (StatusCode::OK, &json!("already_labelled")), "{again:?}");
        assert_eq!(server.api.counts("d").await, after);
    }
    let unknown = server.api.post("/v1/domains/d/feedback", &json!({ "id": "never", "label": "up" })).await;
    assert_eq!((unknown.status, &unknown.body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_event")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_gets_a_reason_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let declared = [("d", Task::Classification, 2), ("numbers", Task::Regression, 1), ("shapes", Task::Patterns, 1)];
    let server = Server::start(directory.path(), settings(&declared)).await;
    server.api.insist("d", &event(0)).await;
    let all = async || {
        let api = &server.api;
        (
            api.counts("d").await,
            api.counts("numbers").await,
            api.counts("shapes").await,
            api.get("/v1/domains").await.body,
        )
    };
    let before = all().await;

    let features = |count: usize| format!(r#"{{"features":[{}0]}}"#, "0,".repeat(count - 1));
    let long = "x".repeat(300);
    let text = |text: &str| text.to_owned();
    let post = Method::POST;
    let (numbers, shapes) = ("/v1/domains/numbers/infer-and-adapt", "/v1/domains/shapes/infer-and-adapt");
    let cases: Vec<(Method, &str, String, u16)> = vec![
        (post.clone(), LEARN, text(""), 400),
        (post.clone(), LEARN, text("features=1"), 400),
        (post.clone(), LEARN, text(r#"{"features":[1]"#), 400),
        (post.clone(), LEARN, text("\u{0}\u{1}"), 400),
        (post.clone(), LEARN, "[".repeat(100_000), 400),
        (post.clone(), LEARN, text("[1,2]"), 400),
        (post.clone(), LEARN, text(r#"{"id":"a"}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":"1,2"}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":["1"]}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":{"a":[1]}}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[1],"label":{"a":1}}"#), 400),
        (post.clone(), LEARN, text(r#"{"id":7,"features":[1]}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[1],"lable":"up"}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[NaN]}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[Infinity]}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[1e999]}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":{"a":-1e999}}"#), 400),
        (post.clone(), LEARN, text(r#"{"features":[]}"#), 422),
        (post.clone(), LEARN, text(r#"{"features":{}}"#), 422),
        (post.clone(), LEARN, text(r#"{"features":{"":1}}"#), 422),
        (post.clone(), LEARN, text(r#"{"id":"","features":[1]}"#), 422),
        (post.clone(), LEARN, text(r#"{"key":"","features":[1]}"#), 422),
        (post.clone(), LEARN, format!(r#"{{"id":"{long}","features":[1]}}"#), 413),
        (post.clone(), LEARN, format!(r#"{{"features":{{"a":"{long}"}}}}"#), 413),
        (post.clone(), LEARN, features(10_000), 413),
        (post.clone(), LEARN, features(1 << 20), 413),
        (post.clone(), LEARN, text(r#"{"features":[1],"label":1.5}"#), 422),
        (post.clone(), numbers, text(r#"{"features":[1],"label":"up"}"#), 422),
        (post.clone(), numbers, text(r#"{"features":[1],"label":true}"#), 422),
        (post.clone(), shapes, text(r#"{"features":[1,2,3]}"#), 422),
        (post.clone(), "/v1/domains/d/perceive", text(r#"{"signal":[1,2,3]}"#), 422),
        (post.clone(), "/v1/domains/shapes/perceive", text(r#"{"signal":[1]}"#), 422),
        (post.clone(), "/v1/domains/shapes/perceive", text(r#"{"signal":[1,1e300]}"#), 400),
        (post.clone(), "/v1/domains/shapes/perceive", text(r#"{"signal":[1,1e16]}"#), 422),
        (post.clone(), "/v1/domains/shapes/perceive", text(r#"{"features":[1,2]}"#), 400),
        (post.clone(), "/v1/domains/shapes/feedback", text(r#"{"id":"a","label":"up"}"#), 422),
        (post.clone(), "/v1/domains/d/feedback", text(r#"{"id":"event-0"}"#), 400),
        (post.clone(), "/v1/domains/d/feedback", text(r#"{"id":"event-0","label":0.5}"#), 422),
        (post.clone(), "/v1/domains/d/infer", text(r#"{"features":[1],"label":"up"}"#), 422),
        (post.clone(), "/v1/domains/nowhere/infer-and-adapt", text(r#"{"features":[1]}"#), 404),
        (post.clone(), "/v1/domains/nowhere/perceive", text(r#"{"signal":[1,2]}"#), 404),
        (post.clone(), "/v1/domains/nowhere/feedback", text(r#"{"id":"a","label":"up"}"#), 404),
        (Method::GET, "/v1/domains/nowhere", text(""), 404),
        (post.clone(), "/v1/domains/No_Name/infer-and-adapt", text(r#"{"features":[1]}"#), 400),
        (post.clone(), "/v1/domains/-d/infer-and-adapt", text(r#"{"features":[1]}"#), 400),
        (Method::GET, "/v1/domains/%FF", text(""), 400),
        (Method::GET, "/v1/domains/shapes/patterns?limit=many", text(""), 400),
        (Method::GET, "/v1/domains/shapes/patterns?limit=1001", text(""), 400),
        (Method::GET, "/v1/domains/d/patterns", text(""), 422),
        (Method::GET, "/v1/domains/d/events/event-0?kei=2", text(""), 400),
        (post.clone(), "/v1/domains/d/infer?consistenc=Eventual", text(r#"{"features":[1,2]}"#), 400),
        (Method::GET, "/v2/domains", text(""), 404),
        (Method::GET, "/", text(""), 404),
        (Method::GET, LEARN, text(""), 405),
        (Method::DELETE, "/v1/domains/d", text(""), 405),
    ];
    for (method, path, body, status) in cases {
        let shown = format!("{method} {path} {}", &body[..body.len().min(80)]);
        let answer = server.api.send(method, path, body).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{shown}: {answer:?}");
        let error = &answer.body["error"];
        assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{shown}: {answer:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}: {answer:?}");
    }
    assert_eq!(all().await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_made_by_its_first_good_event_and_by_no_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&[]);
    settings.allow_undeclared_domains = true;
    let server = Server::start(directory.path(), settings).await;
    let long = "x".repeat(300);
    for body in [
        json!({ "features": [] }),
        json!({ "id": "", "features": [1] }),
        json!({ "id": long, "features": [1] }),
        json!({ "key": "", "features": [1] }),
        json!({ "features": [1], "label": long }),
        json!({ "features": { "a": long } }),
    ] {
        let answer = server.api.post(LEARN, &body).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
        let known = server.api.get("/v1/domains").await;
        assert_eq!(known.body, json!({ "domains": [] }), "after {body}");
    }
    server.api.insist("d", &event(0)).await;
    server.api.insist("prices", &json!({ "features": [1], "label": 3.7 })).await;
    let known = server.api.get("/v1/domains").await;
    let tasks: Vec<&Value> = known.body["domains"].as_array().unwrap().iter().map(|domain| &domain["task"]).collect();
    assert_eq!(tasks, ["Classification", "Regression"], "{known:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_learned_and_answered_line_by_line_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&[]);
    settings.allow_undeclared_domains = true;
    // Fewer than a stream has under way: it is slowed down, not refused.
    settings.max_queue_size = 100;
    let server = Server::start(directory.path(), settings).await;
    let bad = 1_000;
    let lines: Vec<String> =
        (0..2_000).map(|number| if number == bad { "{oops".to_owned() } else { event(number).to_string() }).collect();
    let answers = server.stream("d", lines.join("\n")).await;
    assert_eq!(answers.len(), 2_000);
    for (number, answer) in answers.iter().enumerate() {
        if number == bad {
            assert_eq!(answer["error"]["code"], json!("bad_body"), "{answer}");
        } else {
            assert_eq!(answer["id"], id(number), "{answer}");
        }
    }
    let ids: Vec<String> = (0..2_000).filter(|number| *number != bad).map(id).collect();
    let counts = server.api.counts("d").await;
    assert_eq!((&counts["events"], &counts["appliedDigest"]), (&json!(1_999), &json!(digest(&ids))), "{counts}");

    let server_ref = &server;
    let places: Vec<(u64, u64)> = stream::iter(&ids)
        .map(|id| async move { server_ref.api.get(&format!("/v1/domains/d/events/{id}")).await })
        .buffered(50)
        .map(|found| {
            let (at_ms, seq) = found.body["appliedAt"].as_str().unwrap().split_once('-').unwrap();
            (at_ms.parse().unwrap(), seq.parse().unwrap())
        })
        .collect()
        .await;
    assert!(places.is_sorted(), "the events were learned in another order than they came");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_that_recur_in_signals_are_found_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("shapes", Task::Patterns, 1)])).await;
    let tooth = |step: usize| if step < 20 { step as f64 / 2.0 } else { 10.0 - (step - 20) as f64 * 2.5 };
    let signal: Vec<f64> =
        (0..20).flat_map(|_| (0..34).map(|step| if step < 10 { 0.1 } else { tooth(step - 10) })).collect();
    let perceive = async |id: &str| {
        let path = "/v1/domains/shapes/perceive";
        let answer = server.api.post(path, &json!({ "id": id, "signal": signal })).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    };
    perceive("first").await;
    let second = perceive("second").await;
    let found = second["patterns"].as_array().unwrap();
    assert!(found.iter().filter(|pattern| pattern["new"] == json!(false)).count() >= 20, "{second}");
    assert_eq!(perceive("second").await["duplicate"], json!(true));

    let listed = server.api.get("/v1/domains/shapes/patterns").await;
    let listed = listed.body["patterns"].as_array().unwrap().clone();
    let known: BTreeSet<u64> = listed.iter().filter_map(|pattern| pattern["id"].as_u64()).collect();
    assert!(found.iter().all(|pattern| known.contains(&pattern["id"].as_u64().unwrap())), "{listed:?}");
    assert!(listed[0]["support"].as_u64().unwrap() >= 30, "{listed:?}");
    assert!(listed.is_sorted_by_key(|pattern| std::cmp::Reverse(pattern["support"].as_u64())));
    let one = server.api.get("/v1/domains/shapes/patterns?limit=1").await;
    assert_eq!(one.body["patterns"], json!([listed[0]]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_signals_is_answered_in_order_each_as_if_it_had_come_alone() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("shapes", Task::Patterns, 3)])).await;
    let path = "/v1/domains/shapes/perceive:batch";
    let signals: Vec<Value> = (0..50)
        .map(|number| {
            let samples: Vec<u32> = (0..40).map(|step| (step * (number % 5 + 1)) % 17).collect();
            match number {
                7 => json!({ "id": "short", "signal": [1] }),
                number if number % 2 == 0 => json!(samples),
                number => json!({ "id": id(number as usize), "key": "k", "signal": samples }),
            }
        })
        .collect();
    let answer = server.api.post(path, &json!({ "signals": signals, "batch_size": 8 })).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let answers = answer.body["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 50);
    for (number, answer) in answers.iter().enumerate() {
        match number {
            7 => assert_eq!(answer["error"]["code"], json!("unfit"), "{answer}"),
            number if number % 2 == 0 => assert_eq!(answer["id"].as_str().map(str::len), Some(32), "{answer}"),
            number => {
                assert_eq!((&answer["id"], &answer["duplicate"]), (&json!(id(number)), &json!(false)), "{answer}")
            }
        }
    }
    assert_eq!(server.api.counts("shapes").await["events"], json!(49));
    let again = server.api.post(path, &json!({ "signals": [signals[9]] })).await;
    assert_eq!(again.body["answers"][0]["duplicate"], json!(true), "{again:?}");
    for (body, status) in [
        (json!({ "signals": [] }), 422),
        (json!({ "signals": [[1, 2]], "batch_size": 0 }), 422),
        (json!({ "signals": [[1, 2]], "batch_size": 513 }), 422),
        (json!({ "signals": [[1, 2]], "batchSize": 1 }), 400),
        (json!({ "signals": [{ "id": "a" }] }), 400),
        (json!({ "signals": [[1, 2], "x"] }), 400),
        (json!({ "signals": vec![[1, 2]; 1_001] }), 413),
    ] {
        assert_eq!(server.api.post(path, &body).await.status.as_u16(), status, "{body}");
    }
    let nowhere = server.api.post("/v1/domains/nowhere/perceive:batch", &json!({ "signals": [[1, 2]] })).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND, "{nowhere:?}");
    assert_eq!(server.api.counts("shapes").await["events"], json!(49));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_what_is_acknowledged_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&[("d", Task::Classification, 1)]);
    settings.max_queue_size = 1;
    let server = Server::start(directory.path(), settings).await;
    server.api.insist("d", &event(0)).await;
    let answers: Vec<_> = stream::iter(1..400)
        .map(|number| {
            let api = server.api.clone();
            async move { (id(number), api.post(LEARN, &event(number)).await) }
        })
        .buffer_unordered(100)
        .collect()
        .await;
    let mut acknowledged = vec![id(0)];
    let mut refused = 0;
    for (id, answer) in answers {
        match answer.status {
            StatusCode::OK => acknowledged.push(id),
            StatusCode::TOO_MANY_REQUESTS => {
                refused += 1;
                assert!(answer.retry_after.as_deref().is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
                assert_eq!(answer.body["error"]["code"], json!("queue_full"));
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(refused > 0 && acknowledged.len() > 1, "{refused} refused, {} acknowledged", acknowledged.len());
    let counts = server.api.counts("d").await;
    assert_eq!(counts["events"], json!(acknowledged.len()), "what was refused is not applied");
    assert_eq!(counts["appliedDigest"], json!(digest(&acknowledged)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_leader_worker_and_domain_and_every_role_is_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 2)])).await;
    for number in 0..20 {
        server.api.insist("d", &event(number)).await;
    }
    // The workers' reports come with their heartbeats.
    let settled = |body: &Value| body["domains"][0]["events"] == json!(20) && body["lag"] == json!(0);
    let status = server.status.until("/api/v1/status", |answer| settled(&answer.body)).await.body;
    assert_eq!(status["leader"], json!("local"));
    assert_eq!(status["unowned"], json!(0));
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 1, "{status}");
    assert_eq!((&workers[0]["id"], &workers[0]["partitions"]), (&json!("local"), &json!(2)), "{status}");

    // What was asked above took some time to answer, and the process needs memory.
    let timed =
        |status: &Value| status["answer_p99_seconds"].as_f64().is_some_and(|seconds| 0.0 < seconds && seconds < 40.0);
    let status = server.status.until("/api/v1/status", |answer| timed(&answer.body)).await.body;
    assert!(status["apply_p95_seconds"].as_f64().is_some_and(|seconds| seconds < 10.0), "{status}");
    assert!(status["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{status}");
    let domain = &status["domains"][0];
    assert_eq!((&domain["name"], &domain["labels"], &domain["lag"]), (&json!("d"), &json!(20), &json!(0)), "{status}");
    assert_eq!(domain["partitions"].as_array().unwrap().len(), 2);
    for api in [&server.api, &server.status, &server.worker] {
        for path in ["/health", "/health/liveness", "/health/readiness"] {
            let health = api.until(path, |answer| answer.status == StatusCode::OK).await;
            assert_eq!(health.body["status"], json!("ok"), "{health:?}");
        }
        assert_eq!(api.get("/metrics").await.status, StatusCode::OK);
        let nowhere = api.get("/nowhere").await;
        assert_eq!((nowhere.status, &nowhere.body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_route")));
    }
    server.stop().await;
}
