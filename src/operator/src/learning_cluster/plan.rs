//! Decides what to write: pure, from what should be there and what is.
//!
//! An object is written when it is missing, when what Hebb owns in it was changed, or when Hebb wants something else than
//! what it applied last. Planning on the result of a plan plans nothing.

use std::collections::BTreeMap;

use hebb_api::names::MANAGER;
use serde_json::{Value, json};

use super::quantity;
use super::render::{APPLIED_ANNOTATION, Child, Desired, Kind};

/// The live objects by kind and name, as the API server answers them.
pub type Live = BTreeMap<(Kind, String), Value>;

/// Why an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It isn't there.
    Missing,
    /// Somebody changed what Hebb owns.
    Drifted,
    /// The spec, or Hebb, wants something else than before.
    Changed,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Apply this object.
    Apply { child: Child, because: Because },
    /// Let another manager own the number of replicas that stands, before an applied object no longer names it: a number
    /// that nobody owns becomes 1.
    HandOver { kind: Kind, name: String, object: Value },
    /// Delete this very object.
    Delete { kind: Kind, name: String, uid: String },
    /// An object of this name belongs to somebody else.
    Foreign { kind: Kind, name: String },
}

impl Step {
    /// The object that the step is about.
    pub fn key(&self) -> (Kind, String) {
        match self {
            Step::Apply { child, .. } => (child.kind, child.name.clone()),
            Step::HandOver { kind, name, .. } | Step::Delete { kind, name, .. } | Step::Foreign { kind, name } => {
                (*kind, name.clone())
            }
        }
    }
}

/// The steps from what is to what should be, in order.
pub fn plan(desired: &Desired, live: &Live, owner_uid: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for child in &desired.present {
        let found = live.get(&(child.kind, child.name.clone()));
        let child = &found.map_or_else(|| child.clone(), |found| standing(child, found));
        let because = match found {
            None => Because::Missing,
            Some(found) if !is_owned(found, owner_uid) => {
                steps.push(Step::Foreign { kind: child.kind, name: child.name.clone() });
                continue;
            }
            // What runs once is made once.
            Some(_) if child.kind == Kind::Job => continue,
            Some(found) if applied(found) != applied(&child.object) => Because::Changed,
            Some(found) if !is_within(&child.object, found) => Because::Drifted,
            // An HPA leaves a workload alone that has none.
            Some(found) if replicas(found) == 0 && least(child, desired) > 0 => {
                steps.push(hand_over(child, found, desired));
                continue;
            }
            Some(_) => continue,
        };
        if let Some(found) = found
            && keeps_replicas(child)
            && owns_replicas(found)
        {
            steps.push(hand_over(child, found, desired));
        }
        steps.push(Step::Apply { child: child.clone(), because });
    }
    for (kind, name) in &desired.absent {
        if let Some(found) = live.get(&(*kind, name.clone()))
            && is_owned(found, owner_uid)
            && let Some(uid) = found["metadata"]["uid"].as_str()
        {
            steps.push(Step::Delete { kind: *kind, name: name.clone(), uid: uid.to_owned() });
        }
    }
    steps
}

/// Whether the number of replicas stays as it stands, so that somebody must have looked before it is applied.
pub fn keeps_replicas(child: &Child) -> bool {
    matches!(child.kind, Kind::Deployment | Kind::ReplicaSet) && child.object["spec"]["replicas"].is_null()
}

/// Leaves the number of replicas to an HPA: as it stands, but never less than that may choose.
fn hand_over(child: &Child, found: &Value, desired: &Desired) -> Step {
    let object = json!({
        "apiVersion": child.object["apiVersion"], "kind": child.object["kind"],
        "metadata": {"name": child.name, "namespace": child.object["metadata"]["namespace"]},
        "spec": {"replicas": replicas(found).max(least(child, desired))},
    });
    Step::HandOver { kind: child.kind, name: child.name.clone(), object }
}

/// The least that an HPA chooses for a workload; 0 where none scales it.
fn least(child: &Child, desired: &Desired) -> i64 {
    let scales = |other: &&Child| {
        let target = &other.object["spec"]["scaleTargetRef"];
        other.kind == Kind::HorizontalPodAutoscaler
            && target["kind"] == child.kind.names().2
            && target["name"] == child.name
    };
    let scaler = desired.present.iter().find(scales);
    scaler.map_or(0, |scaler| scaler.object["spec"]["minReplicas"].as_i64().unwrap_or(1))
}

fn replicas(workload: &Value) -> i64 {
    workload["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// What is wanted of an object that stands. A claim keeps what it is: a volume doesn't shrink, and somebody may have let it
/// grow.
fn standing(child: &Child, found: &Value) -> Child {
    let mut child = child.clone();
    if child.kind == Kind::PersistentVolumeClaim {
        for field in ["resources", "storageClassName", "accessModes"] {
            child.object["spec"][field] = found["spec"][field].clone();
        }
    }
    child
}

/// Whether the object is controlled by this owner, or by nobody: then it is adopted.
fn is_owned(object: &Value, owner_uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == Value::Bool(true));
    controller.is_none_or(|owner| owner["uid"] == owner_uid)
}

/// Whether what Hebb applied last names the number of replicas.
fn owns_replicas(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().any(|entry| {
        entry["manager"] == MANAGER
            && entry["operation"] == "Apply"
            && !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null()
    })
}

/// The digest of what was applied last.
pub fn applied(object: &Value) -> &Value {
    &object["metadata"]["annotations"][APPLIED_ANNOTATION]
}

/// Whether everything in `wanted` stands in `found`; what else is there belongs to others.
fn is_within(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(key, value)| match found.get(key) {
            Some(found) => is_within(value, found),
            // The API server leaves out what is empty or false.
            None => is_nothing(value),
        }),
        // Entries with a key are owned one by one, and server-side apply keeps those of others: so must the comparison,
        // or it would ask for the same write for ever.
        (Value::Array(wanted), Value::Array(found)) if !wanted.is_empty() && wanted.iter().all(is_keyed) => {
            wanted.iter().all(|wanted| found.iter().any(|found| is_within(wanted, found)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| is_within(wanted, found))
        }
        (Value::String(wanted), Value::String(found)) => {
            wanted == found || quantity::parse(wanted).is_some_and(|number| quantity::parse(found) == Some(number))
        }
        (wanted, found) => wanted == found,
    }
}

/// Whether this is an entry of a list that Kubernetes merges by key.
fn is_keyed(entry: &Value) -> bool {
    ["name", "mountPath", "topologyKey"].iter().any(|key| entry.get(key).is_some())
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::learning_cluster::certificate::{Certificate, Pems, Source};
    use crate::learning_cluster::render::render;
    use crate::learning_cluster::topology::Secrets;
    use crate::learning_cluster::topology::example::topology;
    use proptest::prelude::*;

    /// What an API server would hold after the steps: with its own additions.
    fn carry_out(steps: &[Step], live: &mut Live) {
        for step in steps {
            match step {
                Step::Apply { child, .. } => {
                    let mut object = child.object.clone();
                    object["metadata"]["uid"] = json!("x");
                    object["metadata"]["resourceVersion"] = json!("5");
                    object["status"] = json!({"replicas": 1});
                    live.insert((child.kind, child.name.clone()), object);
                }
                Step::Delete { kind, name, .. } => {
                    live.remove(&(*kind, name.clone()));
                }
                Step::HandOver { kind, name, object } => {
                    let standing = live.get_mut(&(*kind, name.clone())).unwrap();
                    standing["spec"]["replicas"] = object["spec"]["replicas"].clone();
                }
                Step::Foreign { .. } => {}
            }
        }
    }

    proptest! {
        #[test]
        fn planning_on_its_own_result_plans_nothing(
            workers in 0i32..9, gateways in 1i32..5, suspend: bool, budgets: bool, volume: bool,
            lost in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut spec = json!({
                "workers": {"replicas": workers, "podTemplate": {"resources": {"limits": {"cpu": "1000m"}}}},
                "gateway": {"replicas": gateways}, "suspend": suspend, "podDisruptionBudget": {"enabled": budgets},
                "domains": [{"name": "a", "task": "Classification"}],
            });
            if volume {
                spec["redis"] = json!({"storage": {"size": "1Gi"}});
            }
            let desired = render(&topology(spec));
            let mut live = Live::new();
            let first = plan(&desired, &live, "u1");
            prop_assert_eq!(first.len(), desired.present.len());
            carry_out(&first, &mut live);
            prop_assert_eq!(plan(&desired, &live, "u1"), vec![]);
            // Whatever subset a crash or a hand took away comes back, and nothing else is touched.
            let mut gone = BTreeMap::new();
            for index in lost {
                let key = live.keys().nth(index.index(live.len().max(1))).cloned();
                if let Some(key) = key {
                    gone.insert(key.clone(), live.remove(&key));
                }
            }
            let repair = plan(&desired, &live, "u1");
            prop_assert_eq!(repair.len(), gone.len());
            carry_out(&repair, &mut live);
            prop_assert_eq!(plan(&desired, &live, "u1"), vec![]);
        }
    }

    fn settled(spec: Value) -> (Desired, Live) {
        let desired = render(&topology(spec));
        let mut live = Live::new();
        carry_out(&plan(&desired, &live, "u1"), &mut live);
        (desired, live)
    }

    #[test]
    fn an_entry_of_somebody_else_in_a_keyed_list_is_no_drift_and_a_changed_or_lost_one_is() {
        let wanted = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
        let added = json!([{"name": "X", "value": "9"}, {"name": "B", "value": "2"}, {"name": "A", "value": "1"}]);
        let changed = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]);
        assert!(is_within(&wanted, &added));
        assert!(!is_within(&wanted, &changed));
        assert!(!is_within(&wanted, &json!([{"name": "A", "value": "1"}])));
        assert!(!is_within(&json!(["--save", ""]), &json!(["--save", "", "--more"])));
    }

    #[test]
    fn a_hand_made_change_is_drift_and_an_addition_is_not() {
        let (desired, mut live) = settled(json!({}));
        let key = (Kind::Deployment, "demo-worker".to_owned());
        live.get_mut(&key).unwrap()["metadata"]["labels"]["team"] = json!("ml");
        assert_eq!(plan(&desired, &live, "u1"), vec![]);
        live.get_mut(&key).unwrap()["spec"]["replicas"] = json!(7);
        let steps = plan(&desired, &live, "u1");
        assert!(
            matches!(&steps[..], [Step::Apply { because: Because::Drifted, child }] if child.name == "demo-worker")
        );
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_is_a_change() {
        let (_, live) = settled(json!({"workers": {"podTemplate": {"nodeSelector": {"disk": "ssd"}}}}));
        let desired = render(&topology(json!({})));
        let steps = plan(&desired, &live, "u1");
        assert!(
            matches!(&steps[..], [Step::Apply { because: Because::Changed, child }] if child.name == "demo-worker")
        );
    }

    #[test]
    fn scaling_touches_nothing_but_the_scaled_workload() {
        let (_, live) = settled(json!({"workers": {"replicas": 2}}));
        let steps = plan(&render(&topology(json!({"workers": {"replicas": 5}}))), &live, "u1");
        let names: Vec<_> = steps.iter().map(|step| matches!(step, Step::Apply { child, .. } if child.kind == Kind::Deployment && child.name == "demo-worker")).collect();
        assert_eq!(names, [true]);
    }

    fn backed_up(policy: &str) -> Value {
        json!({"backup": {
            "schedule": "0 0 * * *",
            "destination": {"persistentVolumeClaim": {"size": "1Gi", "deletionPolicy": policy}},
        }})
    }

    #[test]
    fn a_claim_that_has_grown_stays_as_it_is_and_a_changed_policy_changes_its_owner() {
        let (desired, mut live) = settled(backed_up("Retain"));
        let key = (Kind::PersistentVolumeClaim, "demo-backup".to_owned());
        let claim = live.get_mut(&key).unwrap();
        assert!(claim["metadata"]["ownerReferences"].is_null(), "it outlives the cluster");
        claim["spec"]["resources"]["requests"]["storage"] = json!("5Gi");
        claim["spec"]["volumeName"] = json!("pv-1");
        assert_eq!(plan(&desired, &live, "u1"), vec![]);
        let steps = plan(&render(&topology(backed_up("Delete"))), &live, "u1");
        let [Step::Apply { child, because: Because::Changed }] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(child.object["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(child.object["spec"]["resources"]["requests"]["storage"], "5Gi");
    }

    #[test]
    fn a_restore_comes_before_everything_but_redis_and_its_job_is_made_once() {
        let spec = json!({"restore": {"from": {"persistentVolumeClaim": {"claimName": "old"}}}});
        let (mut desired, mut live) = settled(spec);
        for name in ["demo-gateway", "demo-worker"] {
            assert_eq!(live[&(Kind::Deployment, name.to_owned())]["spec"]["replicas"], 0, "{name}");
        }
        assert_eq!(live[&(Kind::StatefulSet, "demo-redis".to_owned())]["spec"]["replicas"], 1);
        let key = (Kind::Job, "demo-restore".to_owned());
        let job = desired.present.iter_mut().find(|child| child.kind == Kind::Job).unwrap();
        job.object["metadata"]["annotations"][APPLIED_ANNOTATION] = json!("another image");
        assert_eq!(plan(&desired, &live, "u1"), vec![], "a Job can't change");
        live.remove(&key);
        assert_eq!(plan(&desired, &live, "u1").len(), 1);
    }

    #[test]
    fn a_number_of_replicas_is_handed_over_before_it_is_given_up() {
        let (_, mut live) = settled(json!({}));
        let key = (Kind::Deployment, "demo-worker".to_owned());
        live.get_mut(&key).unwrap()["metadata"]["managedFields"] = json!([
            {"manager": "hebb-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let hpa = render(&topology(json!({"workers": {"autoscaling": {"strategy": "Hpa"}}})));
        let steps = plan(&hpa, &live, "u1");
        let place = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
        let handed = place(|step| matches!(step, Step::HandOver { object, .. } if object["spec"]["replicas"] == 2));
        let given_up = place(|step| matches!(step, Step::Apply { child, .. } if child.kind == Kind::Deployment));
        assert!(handed < given_up);
        assert!(
            steps
                .iter()
                .any(|step| matches!(step, Step::Apply { child, .. } if child.kind == Kind::HorizontalPodAutoscaler))
        );
        live.get_mut(&key).unwrap()["metadata"]["managedFields"] = json!([]);
        assert!(!plan(&hpa, &live, "u1").iter().any(|step| matches!(step, Step::HandOver { .. })));
    }

    #[test]
    fn workers_that_an_hpa_scales_come_back_from_none() {
        let spec = |suspend: bool| {
            let scaling = json!({"strategy": "Hpa", "minReplicas": 3});
            json!({"suspend": suspend, "workers": {"autoscaling": scaling}})
        };
        let (_, mut live) = settled(spec(true));
        let key = (Kind::Deployment, "demo-worker".to_owned());
        assert_eq!(live[&key]["spec"]["replicas"], 0);
        live.get_mut(&key).unwrap()["metadata"]["managedFields"] = json!([
            {"manager": "hebb-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let resumed = render(&topology(spec(false)));
        let handed = |steps: &[Step]| {
            let numbers = steps.iter().filter_map(|step| match step {
                Step::HandOver { object, .. } => object["spec"]["replicas"].as_i64(),
                _ => None,
            });
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(handed(&plan(&resumed, &live, "u1")), [3]);
        carry_out(&plan(&resumed, &live, "u1"), &mut live);
        live.get_mut(&key).unwrap()["spec"]["replicas"] = json!(5);
        assert_eq!(plan(&resumed, &live, "u1"), vec![], "what the HPA decides stands");
        live.get_mut(&key).unwrap()["spec"]["replicas"] = json!(0);
        let steps = plan(&resumed, &live, "u1");
        assert_eq!((steps.len(), handed(&steps)), (1, vec![3]), "an HPA leaves none at none");
    }

    #[test]
    fn a_budget_that_is_switched_off_is_deleted_by_uid_and_a_foreign_object_is_left_alone() {
        let (_, mut live) = settled(json!({}));
        let off = render(&topology(json!({"podDisruptionBudget": {"enabled": false}})));
        let steps = plan(&off, &live, "u1");
        assert_eq!(steps.len(), 3);
        assert!(steps.iter().all(|step| matches!(step, Step::Delete { uid, .. } if uid == "x")));
        let on = render(&topology(json!({})));
        let key = (Kind::Service, "demo-gateway".to_owned());
        live.get_mut(&key).unwrap()["metadata"]["ownerReferences"][0]["uid"] = json!("other");
        assert_eq!(plan(&on, &live, "u1"), vec![Step::Foreign { kind: key.0, name: key.1 }]);
    }

    #[test]
    fn the_pods_meet_the_restricted_pod_security_standard() {
        let mut spec = backed_up("Retain");
        spec["restore"] = json!({"from": {"persistentVolumeClaim": {"claimName": "old"}}});
        for child in render(&topology(spec)).present {
            let spec = &child.object["spec"];
            let spec = if child.kind == Kind::CronJob { &spec["jobTemplate"]["spec"] } else { spec };
            let pod = &spec["template"]["spec"];
            if pod.is_null() {
                continue;
            }
            assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true), "{}", child.name);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], json!("RuntimeDefault"));
            assert_eq!(pod["automountServiceAccountToken"], json!(false));
            for container in pod["containers"].as_array().unwrap() {
                assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
                assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], json!(false));
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
                assert!(container["resources"]["limits"]["memory"].is_string());
            }
        }
    }

    #[test]
    fn an_external_redis_is_named_to_every_node_and_nothing_of_it_is_made() {
        let external = json!({
            "host": "r", "sentinels": ["s-0:26379", "s-1:26379"], "passwordSecretRef": {"name": "p", "key": "k"},
            "tls": {"secretName": "t", "clientCertificate": true}, "waitForReplicas": 1,
        });
        let desired = render(&topology(json!({"redis": {"mode": "External", "external": external}})));
        assert!(desired.present.iter().all(|child| !child.name.ends_with("-redis")));
        let workloads = desired.present.iter().filter(|child| !child.object["spec"]["template"].is_null());
        for child in workloads {
            let pod = &child.object["spec"]["template"]["spec"];
            let env = pod["containers"][0]["env"].to_string();
            for part in ["s-0:26379,s-1:26379", "Replicated:1", "/etc/hebb-redis-tls/tls.key", "secretKeyRef"] {
                assert!(env.contains(part), "{part} in {env}");
            }
            assert!(pod["volumes"].to_string().contains("redis-tls"), "{}", child.name);
        }
    }

    #[test]
    fn no_secret_stands_outside_of_a_secret() {
        let mut topology = topology(json!({}));
        let pems = Pems {
            certificate: "public-1".to_owned(),
            key: "canary-3".to_owned(),
            authority: "public-2".to_owned(),
            authority_key: Some("canary-4".to_owned()),
        };
        topology.secrets = Secrets {
            redis_password: Some("canary-1".to_owned()),
            token: "canary-2".to_owned(),
            certificate: Some(Certificate { secret: "s".to_owned(), source: Source::Hebb, pems: Ok(pems) }),
        };
        for child in render(&topology).present {
            let text = child.object.to_string();
            assert!(child.kind == Kind::Secret || !text.contains("canary"), "{}", child.name);
        }
    }
}
