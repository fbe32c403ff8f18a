//! What the operator may do is what it does. `make test-e2e` runs this last: the other tests have made it use its rights, and
//! the API server's audit log has written it down.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;
use std::time::Duration;

use hebb_e2e::kubectl::{apply, fresh_namespace, get, kubectl, wait_for};
use serde_json::Value;

const SPACE: &str = "hebb-e2e-permissions";
const LIMIT: Duration = Duration::from_secs(30);

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: rights}
spec:
  workers: {autoscaling: {strategy: Hpa, minReplicas: 1, maxReplicas: 2}}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

/// Its alert fires at once, and its action takes every pod away.
const POLICY: &str = "
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata:
  name: rights
  annotations: {hebb.dev/test-receiver: log}
spec:
  targetRef: {name: rights}
  interval: 5s
  rules:
    - name: always
      expr: {indicator: restarts, operator: GreaterThan, threshold: -1}
      severity: Info
      actions: [switch-off]
  routes: [{receiver: log, groupWait: 0s}]
  receivers: [{name: log, log: {}}]
  actions: [{name: switch-off, type: Suspend}]
";

/// A right: API group, resource, verb.
type Right = (String, String, String);

/// Rights that leave no trace here. A plugin of the API server asks whether finalizers could be changed, where it is on; an
/// Event is patched when the same one comes again within minutes; a policy is read one by one when it doesn't fit its
/// definition, which only an older definition lets in.
const SILENT: [(&str, &str, &str); 3] = [
    ("hebb.dev", "learningclusters/finalizers", "update"),
    ("events.k8s.io", "events", "patch"),
    ("hebb.dev", "alertpolicies", "get"),
];

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn granted() -> BTreeSet<Right> {
    let cluster_wide = get("hebb-system", &["clusterrole", "hebb-operator"]).unwrap();
    let lease = get("hebb-system", &["role", "hebb-operator-lease"]).unwrap();
    let mut rights = BTreeSet::new();
    for rule in [&cluster_wide, &lease].into_iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

/// What the operator has done, and what it wasn't let do for want of a right.
fn used(log: &str) -> (BTreeSet<Right>, BTreeSet<Right>) {
    let (mut used, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if event["user"]["username"] != "system:serviceaccount:hebb-system:hebb-operator" {
            continue;
        }
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        let right = (text(&object["apiGroup"]), resource, text(&event["verb"]));
        // A namespace that is ending refuses new objects too; that is no want of a right.
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            denied.insert(right);
            continue;
        }
        if event["verb"] == "patch" && event["responseStatus"]["code"] == 201 {
            used.insert((right.0.clone(), right.1.clone(), "create".to_owned()));
        }
        used.insert(right);
    }
    (used, denied)
}

#[test]
#[ignore = "needs the real cluster: make test-e2e"]
fn every_right_of_the_operator_is_used_and_none_is_missing() {
    let log = std::env::var("HEBB_AUDIT_LOG").unwrap_or_default();
    if log.is_empty() {
        println!("skipped: this cluster has no audit log that tells what was used");
        return;
    }
    // What no other test needs: objects that a changed spec does away with, a test message, an action that changes a spec.
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, CLUSTER).unwrap();
    wait_for("the autoscaler is there", LIMIT, || get(SPACE, &["hpa", "rights-worker"]).ok()).unwrap();
    let less = "{\"spec\":{\"workers\":{\"autoscaling\":{\"strategy\":\"None\"}},\"networkPolicy\":{\"enabled\":false},\"gateway\":{\"replicas\":1}}}";
    kubectl(&["-n", SPACE, "patch", "lc", "rights", "--type=merge", "-p", less]).unwrap();
    wait_for("what isn't wanted any more is gone", LIMIT, || {
        let left = get(SPACE, &["hpa,networkpolicies"]).ok()?;
        let budget = get(SPACE, &["pdb", "rights-gateway"]);
        (left["items"].as_array()?.is_empty() && budget.is_err()).then_some(())
    })
    .unwrap();
    apply(SPACE, POLICY).unwrap();
    wait_for("the test message is sent", LIMIT, || {
        let policy = get(SPACE, &["alertpolicy", "rights"]).ok()?;
        policy["metadata"]["annotations"]["hebb.dev/test-receiver"].is_null().then_some(())
    })
    .unwrap();
    wait_for("the action has suspended the cluster", LIMIT, || {
        (get(SPACE, &["lc", "rights"]).ok()?["spec"]["suspend"] == true).then_some(())
    })
    .unwrap();
    kubectl(&["-n", SPACE, "delete", "alertpolicies,learningclusters", "--all"]).unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();

    let (used, denied) = used(&log);
    assert!(denied.is_empty(), "the operator lacks {denied:?}");
    let silent =
        |(group, resource, verb): &&Right| SILENT.contains(&(group.as_str(), resource.as_str(), verb.as_str()));
    let granted = granted();
    let unused: Vec<&Right> = granted.difference(&used).filter(|right| !silent(right)).collect();
    assert!(unused.is_empty(), "the operator has rights that it doesn't use: {unused:?}");
}
