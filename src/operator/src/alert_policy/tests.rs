//! Passes over a policy against an API server that answers as a test wants it to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hebb_alert::notify::{Edges, Egress, Resolver};
use hebb_alert::{Deliveries, Intent, Message, Record};
use hebb_api::Component;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::context::{Failures, Paces, Written};
use crate::learning_cluster::elections::Elections;
use crate::learning_cluster::known::Known;
use crate::learning_cluster::requests::Requests;
use crate::learning_cluster::scrape::Coordinators;
use crate::learning_cluster::topology::Defaults;
use crate::metrics::Metrics;

const RECORD: &str = "/api/v1/namespaces/default/configmaps/p-alert-record";

/// What is asked of the API server: a method with a path, and the body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A code and a body; nothing where there is never an answer.
type Answer = Option<(u16, Value)>;

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    Some((code, status))
}

fn learning_cluster(name: &str) -> Value {
    json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
        "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {},
    })
}

/// What the controllers share, over an API server that has the LearningCluster `demo` without pods, and for the rest does as
/// `answer` says.
fn context(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> (Arc<Context>, Asked) {
    let asked = Asked::default();
    let (noted, answer) = (asked.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (noted, answer) = (noted.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let what = format!("{} {}", head.method, head.uri);
            let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
            let answer = match what.as_str() {
                _ if what.starts_with("GET") && what.contains("/learningclusters/demo") => {
                    Some((200, learning_cluster("demo")))
                }
                _ if what.starts_with("GET") && what.contains("/pods?") && what.contains("demo") => {
                    Some((200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})))
                }
                _ => answer(&what, &body),
            };
            noted.lock().unwrap().push((what, body));
            let Some((code, answer)) = answer else { return std::future::pending().await };
            let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    let client = Client::new(service, "default");
    let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: None };
    let context = Context {
        client: client.clone(),
        recorder: Recorder::new(client, reporter),
        metrics: Metrics::new().unwrap(),
        defaults: Defaults {
            image: String::new(),
            redis_image: String::new(),
            cluster_domain: String::new(),
            operator_namespace: String::new(),
        },
        coordinators: Coordinators::default(),
        elections: Elections::default(),
        failures: Failures::default(),
        paces: Paces::default(),
        written: Written::default(),
        known: Known::default(),
        edges: Edges::new(Egress::default(), Resolver::System, b"", None).unwrap(),
        pasts: Pasts::default(),
        requests: Requests::default(),
        clusters_changed: mpsc::channel(1).0,
        policies_changed: mpsc::channel(1).0,
    };
    (Arc::new(context), asked)
}

fn asked_for(asked: &Asked, beginning: &str) -> Vec<Value> {
    let asked = asked.lock().unwrap();
    asked.iter().filter(|(what, _)| what.starts_with(beginning)).map(|(_, body)| body.clone()).collect()
}

/// A policy whose one rule has no data, of which it makes this.
fn policy(name: &str, on_no_data: &str) -> AlertPolicy {
    serde_json::from_value(json!({
        "apiVersion": "hebb.dev/v1alpha1", "kind": "AlertPolicy",
        "metadata": {"name": name, "namespace": "default", "uid": "u", "generation": 1},
        "spec": {
            "targetRef": {"name": "demo"},
            "rules": [{
                "name": "full", "onNoData": on_no_data,
                "expr": {"indicator": "queue_size", "operator": "GreaterThan", "threshold": 1},
            }],
            "receivers": [{"name": "log", "log": {}}], "routes": [{"receiver": "log"}],
        },
    }))
    .unwrap()
}

/// A record with a message on its way, and so many that have arrived.
fn record(succeeded: u64) -> Record {
    let at = Timestamp::now();
    let intent = Intent {
        key: "k".to_owned(),
        group: "g".to_owned(),
        receiver: "log".to_owned(),
        created_at: at,
        message: Message::test("default/p", at),
        attempts: 0,
        next_at: at,
        leased_until: Some(Timestamp::from_second(at.as_second() + 60).unwrap()),
        failing_since: None,
        before: None,
        dedup: None,
    };
    let deliveries = Deliveries { succeeded, ..Deliveries::default() };
    Record { outbox: vec![intent], deliveries: [("log".to_owned(), deliveries)].into(), ..Record::default() }
}

fn config_map(version: usize, record: &Record) -> Answer {
    let metadata = json!({"name": "p-alert-record", "uid": "c", "resourceVersion": version.to_string()});
    let data = json!({"record.json": record.to_json().unwrap()});
    Some((200, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})))
}

fn stored(body: &Value) -> Record {
    Record::from_json(body["data"]["record.json"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn what_has_come_of_a_message_outlives_a_pass_that_is_cut_off() {
    let writes = AtomicUsize::new(0);
    let (context, asked) = context(move |what, body| match what {
        _ if what.starts_with("GET") => config_map(7, &record(0)),
        _ if what.contains(RECORD) && writes.fetch_add(1, Ordering::SeqCst) == 0 => None,
        _ if what.contains(RECORD) => config_map(8, &stored(body)),
        _ => refusal(404, "NotFound", "there is none"),
    });
    let policy = policy("p", "KeepLast");
    context.pasts.sent(&policy, "k".to_owned(), Ok(()));
    let cut = timeout(Duration::from_millis(300), pass(&policy, &context)).await;
    assert!(cut.is_err(), "the write hangs: {cut:?}");
    pass(&policy, &context).await.unwrap();
    let writes = asked_for(&asked, &format!("PATCH {RECORD}"));
    let last = stored(&writes[1]);
    assert_eq!((writes.len(), last.outbox.len(), last.deliveries["log"].succeeded), (2, 0, 1));
    pass(&policy, &context).await.unwrap();
    assert_eq!(asked_for(&asked, &format!("PATCH {RECORD}")).len(), 2, "it is settled once");
    // What the write that was cut off has done was looked up, once.
    assert_eq!(asked_for(&asked, &format!("GET {RECORD}")).len(), 2);
}

#[tokio::test]
async fn a_record_that_somebody_else_has_written_is_read_anew_and_not_written_over() {
    let reads = AtomicUsize::new(0);
    let (context, asked) = context(move |what, body| match what {
        _ if what.starts_with("GET") && reads.fetch_add(1, Ordering::SeqCst) == 0 => config_map(7, &record(0)),
        _ if what.starts_with("GET") => config_map(9, &record(41)),
        _ if what.contains(RECORD) && body["metadata"]["resourceVersion"] == "7" => {
            refusal(409, "Conflict", "the object has been modified")
        }
        _ if what.contains(RECORD) => config_map(10, &stored(body)),
        _ => refusal(404, "NotFound", "there is none"),
    });
    let policy = policy("p", "KeepLast");
    context.pasts.sent(&policy, "k".to_owned(), Ok(()));
    let raced = reconcile(Arc::new(DeserializeGuard(Ok(policy.clone()))), context.clone()).await;
    assert!(matches!(raced, Err(Error::Store(StoreError::Raced { .. }))), "{raced:?}");
    assert!(asked_for(&asked, "PATCH /apis/hebb.dev").is_empty(), "the next pass mends it: nobody is called");
    pass(&policy, &context).await.unwrap();
    let writes = asked_for(&asked, &format!("PATCH {RECORD}"));
    assert_eq!((&writes[1]["metadata"]["uid"], &writes[1]["metadata"]["resourceVersion"]), (&json!("c"), &json!("9")));
    let last = stored(&writes[1]);
    assert_eq!((last.outbox.len(), last.deliveries["log"].succeeded), (0, 42));
}

#[tokio::test]
async fn a_policy_that_cannot_remember_says_so_once_and_when_it_can_again() {
    let quota = Arc::new(AtomicUsize::new(1));
    let is_full = quota.clone();
    let (context, asked) = context(move |what, body| match what {
        _ if what.starts_with("POST /api/v1/namespaces/default/configmaps") => {
            if is_full.load(Ordering::SeqCst) == 0 {
                return config_map(1, &stored(body));
            }
            refusal(403, "Forbidden", "exceeded quota: small")
        }
        _ if what.starts_with("PATCH") && what.contains("/alertpolicies/p/status") => {
            Some((200, serde_json::to_value(policy("p", "Alert")).unwrap()))
        }
        _ => refusal(404, "NotFound", "there is none"),
    });
    let mut policy = policy("p", "Alert");
    let statuses = || asked_for(&asked, "PATCH /apis/hebb.dev/v1alpha1/namespaces/default/alertpolicies/p/status");
    let mut ready = Vec::new();
    for full in [1, 1, 0] {
        quota.store(full, Ordering::SeqCst);
        let outcome = reconcile(Arc::new(DeserializeGuard(Ok(policy.clone()))), context.clone()).await;
        assert_eq!(outcome.is_err(), full == 1, "{outcome:?}");
        let status: AlertPolicyStatus = serde_json::from_value(statuses().last().unwrap()["status"].clone()).unwrap();
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().clone();
        ready.push((statuses().len(), condition.status, condition.reason, condition.message));
        policy.status = Some(status);
    }
    assert_eq!((ready[0].0, ready[0].1.as_str(), ready[0].2.as_str()), (1, "False", "RecordNotStored"));
    for part in ["ResourceQuota", "p-alert-record", "exceeded quota: small"] {
        assert!(ready[0].3.contains(part), "{ready:?}");
    }
    assert_eq!(ready[1].0, 1, "nothing is written while it stays so");
    assert_eq!((ready[2].0, ready[2].1.as_str()), (2, "True"));
    let events = asked_for(&asked, "POST /apis/events.k8s.io");
    assert_eq!(events.iter().filter(|event| event["reason"] == "RecordNotStored").count(), 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_is_said_with_what_to_do() {
    let long = "x".repeat(241);
    for (name, record, reason, named) in
        [("p", "{", "RecordUnreadable", "the ConfigMap is deleted"), (long.as_str(), "", "NameTooLong", "at most 240")]
    {
        let (context, asked) = context(move |what, _| match what {
            _ if what.starts_with(&format!("GET {RECORD}")) => {
                let metadata = json!({"name": "p-alert-record", "uid": "c", "resourceVersion": "1"});
                let data = json!({"record.json": record});
                Some((200, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})))
            }
            _ => refusal(404, "NotFound", "there is none"),
        });
        let outcome = reconcile(Arc::new(DeserializeGuard(Ok(policy(name, "Alert")))), context).await;
        assert!(outcome.is_err(), "{name}");
        let status = &asked_for(&asked, "PATCH /apis/hebb.dev")[0]["status"];
        for type_ in ["Ready", "Stalled"] {
            let conditions = status["conditions"].as_array().unwrap();
            let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
            assert_eq!(condition["status"] == "True", type_ == "Stalled", "{condition}");
            assert_eq!(condition["reason"], reason);
            assert!(condition["message"].as_str().unwrap().contains(named), "{condition}");
        }
    }
}

#[tokio::test]
async fn the_pods_of_all_clusters_are_asked_for_once() {
    let (context, asked) = context(|what, _| {
        let pod = |cluster: &str, number: usize| {
            json!({"metadata": {
                "name": format!("{cluster}-worker-{number}"),
                "labels": {"hebb.dev/cluster": cluster, "app.kubernetes.io/component": "worker"},
            }})
        };
        let (kind, items) = match what {
            _ if what.contains("/pods?") => ("PodList", vec![pod("a", 0), pod("a", 1), pod("c", 0), pod("other", 0)]),
            _ => ("LearningClusterList", ["a", "b", "c"].map(learning_cluster).to_vec()),
        };
        Some((200, json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items})))
    });
    let mut policy = policy("p", "Ok");
    (policy.spec.target_ref, policy.spec.target_selector) =
        (None, Some(serde_json::from_value(json!({"matchLabels": {"team": "x"}})).unwrap()));
    let seen = observe::seen(&observe::targets(&policy, &context).await.unwrap());
    let workers: BTreeMap<&str, u32> =
        seen.iter().map(|(name, target)| (name.as_str(), target.replicas[&Component::Worker])).collect();
    assert_eq!(workers, [("a", 2), ("b", 0), ("c", 1)].into());
    assert_eq!(asked_for(&asked, "GET /api/v1/namespaces/default/pods").len(), 1);
}
