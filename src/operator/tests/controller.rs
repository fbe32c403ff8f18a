//! The operator on a real API server (etcd and kube-apiserver, no pods): what it makes, repairs, leaves alone and says.
//!
//! `HEBB_APISERVER_KUBECONFIG` names one that runs already; otherwise one is started for the test. Every scenario has a
//! namespace and an operator of its own, and all run at once.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic, and so do the functions that it calls")]

mod admission;
mod backups;
mod certificates;
mod plane;
mod scenario;

use std::future::Future;
use std::time::Duration;

use hebb_operator::OperatorError;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinSet;

use plane::ControlPlane;
use scenario::{Scenario, cluster};

/// ServiceAccount, ConfigMap, 2 Secrets, 3 Services, 2 StatefulSets, 2 Deployments, 3 PodDisruptionBudgets, 4 NetworkPolicies.
const CHILDREN: usize = 18;
/// How soon drift is repaired; the promise is five seconds.
const PROMPT: Duration = Duration::from_secs(5);
/// How soon anything else should have happened on two busy cores.
const PATIENT: Duration = Duration::from_secs(30);

#[test]
fn the_operator_keeps_its_promises_on_a_real_api_server() {
    let plane = ControlPlane::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The scenarios stay on this thread; the operators, which they start, do not.
    let failed = tokio::task::LocalSet::new().block_on(&runtime, async {
        let client = plane.client().await;
        plane::install_definitions(&client).await;
        let mut failed = run_all(&client).await;
        // It changes the definitions, so it runs alone.
        failed.extend(one(an_object_that_cannot_be_read_harms_no_other(client)).await.err());
        failed
    });
    drop(plane);
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn one(scenario: impl Future<Output = ()> + 'static) -> Result<(), String> {
    tokio::task::spawn_local(scenario).await.map_err(|error| error.to_string())
}

async fn run_all(client: &Client) -> Vec<String> {
    let mut running = JoinSet::new();
    running.spawn_local(a_cluster_is_made_once_and_then_nothing_is_written(client.clone()));
    running.spawn_local(drift_is_repaired_and_what_others_add_is_left_alone(client.clone()));
    running.spawn_local(suspend_scales_to_zero_and_keeps_everything(client.clone()));
    running.spawn_local(a_paused_cluster_is_left_alone(client.clone()));
    running.spawn_local(a_request_is_answered_once_and_within_the_budget(client.clone()));
    running.spawn_local(an_operator_with_another_image_changes_nothing(client.clone()));
    running.spawn_local(an_autoscaler_gets_the_number_of_workers_as_it_stands(client.clone()));
    running.spawn_local(pods_that_wait_to_be_deleted_are_made_by_replica_sets(client.clone()));
    running.spawn_local(a_name_that_is_taken_is_said_and_not_taken_over(client.clone()));
    running.spawn_local(a_policy_says_whether_it_fits_together(client.clone()));
    running.spawn_local(a_record_is_not_written_over_that_of_another_writer(client.clone()));
    running.spawn_local(the_lease_is_handed_over(client.clone()));
    running.spawn_local(backups::backups_are_made_once_a_request_and_told_as_they_end(client.clone()));
    running.spawn_local(backups::a_restore_comes_first_and_what_it_refuses_is_told(client.clone()));
    running
        .spawn_local(certificates::a_certificate_of_hebbs_is_made_once_and_renewed_when_it_is_spoilt(client.clone()));
    running
        .spawn_local(certificates::a_certificate_that_is_of_no_use_is_said_and_harms_nothing_that_runs(client.clone()));
    running.spawn_local(certificates::cert_manager_is_asked_for_a_certificate(client.clone()));
    running.spawn_local(admission::the_webhook_refuses_warns_and_hinders_nobody(client.clone()));
    running.spawn_local(what_could_not_work_is_refused_by_name(client.clone()));
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        failed.extend(ended.err().map(|error| error.to_string()));
    }
    failed
}

async fn a_cluster_is_made_once_and_then_nothing_is_written(client: Client) {
    let scenario = Scenario::new(client, "quiet").await;
    let operator = scenario.operator("a", "hebb:1").await;
    let volume = json!({"redis": {"storage": {"size": "1Gi", "deletionPolicy": "Delete"}}});
    scenario.create(&cluster("demo", volume)).await;
    let children = scenario.children(CHILDREN).await;
    for child in &children {
        let owner = &child["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"], &owner["controller"]),
            (&json!("LearningCluster"), &json!("demo"), &json!(true))
        );
        assert_eq!(child["metadata"]["labels"]["hebb.dev/cluster"], "demo");
    }
    let redis: StatefulSet = scenario.api().get("demo-redis").await.unwrap();
    let retention = redis.spec.unwrap_or_default().persistent_volume_claim_retention_policy.unwrap();
    assert_eq!(retention.when_deleted.as_deref(), Some("Delete"));
    scenario
        .status("a true status", PATIENT, |status| {
            status["observedGeneration"] == 1 && scenario::condition(status, "Ready").starts_with("False")
        })
        .await;
    // Some passes follow the last event, so let them.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = (scenario.versions().await, operator.writes().await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((scenario.versions().await, operator.writes().await), before, "written at rest");
    operator.stop().await.unwrap();
}

async fn drift_is_repaired_and_what_others_add_is_left_alone(client: Client) {
    let scenario = Scenario::new(client, "drift").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.children(CHILDREN).await;

    let service = scenario.api::<Service>();
    let uid = service.get("demo-gateway").await.unwrap().metadata.uid;
    service.delete("demo-gateway", &Default::default()).await.unwrap();
    scenario::within("the Service is back", PROMPT, async || {
        service.get_opt("demo-gateway").await.unwrap().filter(|service| service.metadata.uid != uid)
    })
    .await;

    let secret = scenario.api::<Secret>();
    let password = secret.get("demo-redis").await.unwrap().data;
    scenario.patch::<Secret>("demo-redis", json!({"metadata": {"labels": {"hebb.dev/cluster": "other"}}})).await;
    scenario::within("the label is back", PROMPT, async || {
        let labels = secret.get("demo-redis").await.unwrap().metadata.labels.unwrap_or_default();
        (labels.get("hebb.dev/cluster").map(String::as_str) == Some("demo")).then_some(())
    })
    .await;
    assert_eq!(secret.get("demo-redis").await.unwrap().data, password, "a password is made once");

    let edit = json!({"spec": {"replicas": 7, "template": {"spec": {"containers": [{"name": "gateway", "image": "evil:1"}]}}}});
    scenario.patch::<Deployment>("demo-gateway", edit).await;
    let deployments = scenario.api::<Deployment>();
    scenario::within("image and replicas are back", PROMPT, async || {
        let deployment = serde_json::to_value(deployments.get("demo-gateway").await.unwrap()).unwrap();
        let spec = &deployment["spec"];
        (spec["replicas"] == 2 && spec["template"]["spec"]["containers"][0]["image"] == "hebb:1").then_some(())
    })
    .await;

    // Server-side apply leaves another manager's list entries in place, so writing again would never end.
    let added = json!({"spec": {"template": {"spec": {"containers": [{"name": "gateway", "env": [{"name": "EXTRA", "value": "1"}]}]}}}});
    scenario.patch::<Deployment>("demo-gateway", added).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = (scenario.versions().await, operator.writes().await);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!((scenario.versions().await, operator.writes().await), before, "written against somebody else's field");
    operator.stop().await.unwrap();
}

async fn suspend_scales_to_zero_and_keeps_everything(client: Client) {
    let scenario = Scenario::new(client, "suspend").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.children(CHILDREN).await;
    scenario.change("demo", json!({"spec": {"suspend": true}})).await;
    scenario
        .status("suspended", PATIENT, |status| {
            scenario::condition(status, "Suspended").starts_with("True") && status["phase"] == "Suspended"
        })
        .await;
    for name in ["demo-coordinator", "demo-redis"] {
        assert_eq!(
            scenario.api::<StatefulSet>().get(name).await.unwrap().spec.unwrap_or_default().replicas,
            Some(0),
            "{name}"
        );
    }
    assert!(scenario.api::<PodDisruptionBudget>().list(&Default::default()).await.unwrap().items.is_empty());
    scenario.change("demo", json!({"spec": {"suspend": false}})).await;
    scenario.children(CHILDREN).await;
    let workers = scenario.api::<Deployment>();
    scenario::within("the workers are back", PATIENT, async || {
        (workers.get("demo-worker").await.unwrap().spec.unwrap_or_default().replicas == Some(2)).then_some(())
    })
    .await;
    operator.stop().await.unwrap();
}

async fn a_paused_cluster_is_left_alone(client: Client) {
    let scenario = Scenario::new(client, "pause").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.children(CHILDREN).await;
    scenario.change("demo", json!({"metadata": {"annotations": {"hebb.dev/paused": "true"}}})).await;
    scenario.status("paused", PATIENT, |status| status["phase"] == "Paused").await;
    let service = scenario.api::<Service>();
    service.delete("demo-gateway", &Default::default()).await.unwrap();
    tokio::time::sleep(PROMPT).await;
    assert!(service.get_opt("demo-gateway").await.unwrap().is_none(), "a paused cluster was repaired");
    scenario.change("demo", json!({"metadata": {"annotations": {"hebb.dev/paused": null}}})).await;
    scenario::within("the Service is back", PROMPT, async || service.get_opt("demo-gateway").await.unwrap()).await;
    operator.stop().await.unwrap();
}

async fn a_request_is_answered_once_and_within_the_budget(client: Client) {
    let scenario = Scenario::new(client, "request").await;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    scenario.create(&account).await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "demo-redis-0",
            "labels": {"hebb.dev/cluster": "demo", "app.kubernetes.io/component": "redis"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "redis", "image": "redis:7"}]},
    }))
    .unwrap();
    scenario.create(&pod).await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({"healing": {"maxReplacements": 1}}))).await;
    scenario.status("a status", PATIENT, |status| status["observedGeneration"] == 1).await;
    let ask = async |value: &str| {
        scenario.change("demo", json!({"metadata": {"annotations": {"hebb.dev/request": value}}})).await;
        let status = scenario.status("an answer", PATIENT, |status| status["request"]["value"] == value).await;
        (status["request"]["granted"] == true, status["request"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("restart redis 1").await, (true, "restarts demo-redis-0".to_owned()));
    let pods = scenario.api::<Pod>();
    scenario::within("the pod is replaced", PATIENT, async || {
        pods.get_opt("demo-redis-0").await.unwrap().is_none().then_some(())
    })
    .await;
    scenario.create(&pod).await;
    operator.stop().await.unwrap();
    let next = scenario.operator("b", "hebb:1").await;
    next.passes(2).await;
    assert!(pods.get_opt("demo-redis-0").await.unwrap().is_some(), "a request was granted twice");
    let (granted, why) = ask("restart redis 2").await;
    assert!(!granted && why.contains("budget"), "{why}");
    let (granted, why) = ask("failover 3").await;
    assert!(!granted && why.contains("no primary"), "{why}");
    let (granted, why) = ask("dance").await;
    assert!(!granted && why.contains("a request is"), "{why}");
    next.stop().await.unwrap();
}

async fn an_operator_with_another_image_changes_nothing(client: Client) {
    let scenario = Scenario::new(client, "upgrade").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.children(CHILDREN).await;
    scenario.status("the pinned image", PATIENT, |status| status["image"] == "hebb:1").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    operator.stop().await.unwrap();
    let before = scenario.versions().await;
    let newer = scenario.operator("b", "hebb:2").await;
    newer.passes(2).await;
    assert_eq!(scenario.versions().await, before, "an upgrade of the operator wrote");
    newer.stop().await.unwrap();
}

async fn an_autoscaler_gets_the_number_of_workers_as_it_stands(client: Client) {
    let scenario = Scenario::new(client, "hpa").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({"workers": {"replicas": 4}}))).await;
    scenario.children(CHILDREN).await;
    let workers = scenario.api::<Deployment>();
    let replicas = async || workers.get("demo-worker").await.unwrap().spec.unwrap_or_default().replicas;
    scenario.change("demo", json!({"spec": {"workers": {"autoscaling": {"strategy": "Hpa"}}}})).await;
    scenario.children(CHILDREN + 1).await;
    scenario::within("nobody but the autoscaler owns the number", PATIENT, async || {
        let fields = workers.get("demo-worker").await.unwrap().metadata.managed_fields.unwrap_or_default();
        let ours = fields.iter().find(|entry| entry.manager.as_deref() == Some("hebb-operator"))?;
        let owned = serde_json::to_value(&ours.fields_v1).unwrap();
        owned["f:spec"]["f:replicas"].is_null().then_some(())
    })
    .await;
    assert_eq!(replicas().await, Some(4), "the number fell when it was handed over");
    scenario.patch::<Deployment>("demo-worker", json!({"spec": {"replicas": 6}})).await;
    tokio::time::sleep(PROMPT).await;
    assert_eq!(replicas().await, Some(6), "the operator fights the autoscaler");
    // Back again: the autoscaler goes, and the spec counts.
    scenario.change("demo", json!({"spec": {"workers": {"autoscaling": null}}})).await;
    scenario.children(CHILDREN).await;
    scenario::within("the spec's number", PATIENT, async || (replicas().await == Some(4)).then_some(())).await;
    operator.stop().await.unwrap();
}

async fn pods_that_wait_to_be_deleted_are_made_by_replica_sets(client: Client) {
    let scenario = Scenario::new(client, "on-delete").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({"upgrade": {"strategy": "OnDelete"}}))).await;
    scenario.children(CHILDREN).await;
    let sets = async || scenario.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.len();
    let deployments = async || scenario.api::<Deployment>().list(&Default::default()).await.unwrap().items.len();
    assert_eq!((sets().await, deployments().await), (2, 0));
    for name in ["demo-coordinator", "demo-redis"] {
        let set = scenario.api::<StatefulSet>().get(name).await.unwrap().spec.unwrap_or_default();
        assert_eq!(set.update_strategy.unwrap_or_default().type_.as_deref(), Some("OnDelete"), "{name}");
    }
    for (strategy, wanted) in [("RollingUpdate", (0, 2)), ("OnDelete", (2, 0))] {
        scenario.change("demo", json!({"spec": {"upgrade": {"strategy": strategy}}})).await;
        scenario::within(strategy, PATIENT, async || {
            let coordinators = scenario.api::<StatefulSet>().get("demo-coordinator").await.unwrap().spec;
            let told = coordinators.unwrap_or_default().update_strategy.unwrap_or_default().type_;
            ((sets().await, deployments().await) == wanted && told.as_deref() == Some(strategy)).then_some(())
        })
        .await;
    }
    operator.stop().await.unwrap();
}

async fn a_name_that_is_taken_is_said_and_not_taken_over(client: Client) {
    let scenario = Scenario::new(client, "taken").await;
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).unwrap();
    let owner = scenario.api::<ConfigMap>().create(&Default::default(), &owner).await.unwrap();
    let foreign: Service = serde_json::from_value(json!({
        "metadata": {"name": "demo-gateway", "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "controller": true,
        }]},
        "spec": {"ports": [{"port": 1}]},
    }))
    .unwrap();
    let theirs = scenario.api::<Service>().create(&Default::default(), &foreign).await.unwrap();
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario
        .status("stalled", PATIENT, |status| {
            let stalled = scenario::condition(status, "Stalled");
            stalled.starts_with("True NameTaken") && stalled.contains("demo-gateway")
        })
        .await;
    let after = scenario.api::<Service>().get("demo-gateway").await.unwrap();
    assert_eq!(after.metadata.resource_version, theirs.metadata.resource_version);
    operator.stop().await.unwrap();
}

async fn a_policy_says_whether_it_fits_together(client: Client) {
    let scenario = Scenario::new(client, "policy").await;
    let operator = scenario.operator("a", "hebb:1").await;
    let spec = |receiver: &str| {
        json!({
            "targetRef": {"name": "demo"},
            "rules": [{"name": "r", "expr": {"indicator": "queue_size", "operator": "GreaterThan", "threshold": 1}}],
            "receivers": [{"name": "log", "log": {}}], "routes": [{"receiver": receiver}],
        })
    };
    scenario.create(&scenario::policy("p", spec("nobody"))).await;
    let ready = async |what: &'static str, wanted: &'static str| {
        scenario::within(what, PATIENT, async || {
            let policy = scenario.api::<hebb_api::AlertPolicy>().get("p").await.unwrap();
            let status = serde_json::to_value(policy.status).unwrap();
            scenario::condition(&status, "Ready").starts_with(wanted).then_some(())
        })
        .await;
    };
    ready("a missing receiver is named", "False ConfigInvalid spec.routes[0].receiver").await;
    scenario.change_policy("p", json!({"spec": spec("log")})).await;
    ready("a missing target is named", "False NoTarget").await;
    scenario.create(&cluster("demo", json!({}))).await;
    ready("the target is found", "True Evaluating").await;
    operator.stop().await.unwrap();
}

async fn a_record_is_not_written_over_that_of_another_writer(client: Client) {
    let scenario = Scenario::new(client, "record").await;
    let spec = |rules: &[&str]| {
        let expr = json!({"indicator": "queue_size", "operator": "GreaterThan", "threshold": 1});
        let rules: Vec<_> = rules.iter().map(|name| json!({"name": name, "expr": expr, "onNoData": "Alert"})).collect();
        json!({
            "targetRef": {"name": "demo"}, "rules": rules,
            "receivers": [{"name": "log", "log": {}}], "routes": [{"receiver": "log", "groupWait": "0s"}],
        })
    };
    let records = scenario.api::<ConfigMap>();
    let unreadable = json!({"metadata": {"name": "q-alert-record"}, "data": {"record.json": "{"}});
    scenario.create::<ConfigMap>(&serde_json::from_value(unreadable).unwrap()).await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.create(&scenario::policy("p", spec(&["one"]))).await;
    scenario.create(&scenario::policy("q", spec(&["one"]))).await;
    let record = async |what: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        scenario::within(what, PATIENT, async || {
            let data = records.get_opt("p-alert-record").await.unwrap()?.data?;
            let record: serde_json::Value = serde_json::from_str(&data["record.json"]).unwrap();
            wanted(&record).then_some(record)
        })
        .await
    };
    let told = |record: &serde_json::Value| record["deliveries"]["log"]["succeeded"].as_u64().unwrap_or(0);
    let follows = |record: &serde_json::Value, count: usize| record["alerts"].as_object().unwrap().len() == count;
    let mut theirs = record("an alert is told", &|record| told(record) == 1).await;

    theirs["deliveries"]["log"]["succeeded"] = json!(1_000);
    let data = json!({"data": {"record.json": theirs.to_string()}});
    records.patch("p-alert-record", &PatchParams::default(), &Patch::Merge(&data)).await.unwrap();
    scenario.change_policy("p", json!({"spec": spec(&["one", "two"])})).await;
    record("what another wrote is kept", &|record| follows(record, 2) && told(record) >= 1_000).await;

    records.delete("p-alert-record", &DeleteParams::default()).await.unwrap();
    scenario.change_policy("p", json!({"spec": spec(&["one", "two", "three"])})).await;
    record("one that was deleted is begun anew", &|record| follows(record, 3) && told(record) < 1_000).await;

    scenario::within("a record that can't be read is said", PATIENT, async || {
        let policy = scenario.api::<hebb_api::AlertPolicy>().get("q").await.unwrap();
        let status = serde_json::to_value(policy.status).unwrap();
        scenario::condition(&status, "Ready").starts_with("False RecordUnreadable").then_some(())
    })
    .await;
    operator.stop().await.unwrap();
}

async fn the_lease_is_handed_over(client: Client) {
    let scenario = Scenario::new(client, "lease").await;
    let first = scenario.operator("a", "hebb:1").await;
    first.leads(PATIENT).await;
    let second = scenario.operator("b", "hebb:1").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!second.is_leading().await, "two leaders");
    first.stop().await.unwrap();
    // A released lease is taken at the next look.
    second.leads(PROMPT).await;
    let third = scenario.operator("c", "hebb:1").await;
    // Long enough to have seen the lease, and for the second to have renewed it since.
    tokio::time::sleep(Duration::from_secs(3)).await;
    second.kill();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!third.is_leading().await, "a lease was taken before it expired");
    third.leads(Duration::from_secs(12)).await;
    // Whoever loses the lease ends, and with an error.
    scenario.steal_lease("somebody-else").await;
    let ended = tokio::time::timeout(PATIENT, third.ended()).await.unwrap();
    assert!(matches!(ended, Err(OperatorError::LeaseLost)), "{ended:?}");
}

async fn what_could_not_work_is_refused_by_name(client: Client) {
    let scenario = Scenario::new(client, "refused").await;
    for (name, spec, named) in [
        ("7up", json!({}), "metadata.name: at most 40"),
        ("a.b", json!({}), "metadata.name: at most 40"),
        ("a", json!({"engine": {"checkpointInterval": "0s"}}), "spec.engine.checkpointInterval: must be"),
        ("a", json!({"workers": {"drainTimeout": "2h"}}), "spec.workers.drainTimeout: must be"),
    ] {
        let refused = scenario.create_refused(name, spec).await;
        assert!(refused.contains(named), "{refused}");
    }
}

async fn an_object_that_cannot_be_read_harms_no_other(client: Client) {
    let scenario = Scenario::new(client, "unreadable").await;
    plane::relax_definition(scenario.client()).await;
    scenario.create_raw("broken", json!({"engine": {"gateMode": "Never"}})).await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario.create(&cluster("demo", json!({}))).await;
    scenario.children(CHILDREN).await;
    scenario.stalled_raw("broken", "Never", PATIENT).await;
    operator.stop().await.unwrap();
}
