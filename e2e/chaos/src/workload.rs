//! What is asked of the operator: steps, each with the state that it must lead to.

use hebb_api::names;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::Error;
use crate::stand_in::{BROKEN, CLUSTER, DEPLOYMENT, KINDS, POD, POLICY, SERVICE, StandIn, api, is_ready, list, owners};

/// The cluster of every workload.
pub const NAME: &str = "demo";
/// The policy of the workload with one.
const POLICY_NAME: &str = "watch";
/// A pod that becomes sick.
const PATIENT: &str = "demo-worker-0";
const GATEWAY: &str = "demo-gateway";

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Make the cluster.
    Create(Value),
    /// Change its spec.
    Change(Value),
    /// Delete a Service and edit a Deployment, as a careless hand does.
    Spoil,
    /// Let a pod crash again and again.
    Sicken,
    /// Make a policy that watches the cluster.
    Watch,
    /// Delete the policy.
    Unwatch,
    /// Delete the cluster.
    Delete,
}

/// The state that a step must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The cluster is ready, with what its spec says now.
    Ready,
    /// It is at rest.
    Suspended,
    /// It is back at the revision before.
    RolledBack,
    /// The policy says that it watches.
    Watching,
    /// Nothing of the cluster is left.
    Gone,
}

/// A workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// Steps before faults begin.
    pub before: Vec<(Step, Goal)>,
    /// Steps with faults.
    pub steps: Vec<(Step, Goal)>,
}

/// The names of all workloads.
pub const ALL: [&str; 10] =
    ["apply", "scale", "upgrade", "heal", "delete", "suspend", "autoscale", "queue", "alert", "rollback"];

/// The workload of this name.
pub fn find(name: &str) -> Option<Workload> {
    let base = json!({
        "gateway": {"replicas": 2}, "workers": {"replicas": 2},
        "domains": [{"name": "a", "task": "Classification"}],
    });
    let ready = |spec: Value| (Step::Change(spec), Goal::Ready);
    let made = vec![(Step::Create(base.clone()), Goal::Ready)];
    let name = *ALL.iter().find(|known| **known == name)?;
    let (before, steps) = match name {
        "apply" => (Vec::new(), made),
        "scale" => (made, vec![ready(json!({"workers": {"replicas": 4}})), ready(json!({"workers": {"replicas": 1}}))]),
        "upgrade" => (made, vec![ready(json!({"image": "hebb:2", "engine": {"learningRate": 0.02}}))]),
        "heal" => (made, vec![(Step::Spoil, Goal::Ready), (Step::Sicken, Goal::Ready)]),
        "delete" => (
            Vec::new(),
            vec![
                made.first().cloned()?,
                (Step::Delete, Goal::Gone),
                made.first().cloned()?,
                (Step::Delete, Goal::Gone),
            ],
        ),
        "suspend" => {
            (made, vec![(Step::Change(json!({"suspend": true})), Goal::Suspended), ready(json!({"suspend": false}))])
        }
        "autoscale" => (
            made,
            vec![
                ready(json!({"workers": {"autoscaling": {"strategy": "Hpa"}}})),
                ready(json!({"workers": {"autoscaling": null}})),
            ],
        ),
        "queue" => {
            let autoscaling = json!({"strategy": "Queue", "minReplicas": 2, "maxReplicas": 5});
            (
                made,
                vec![
                    ready(json!({"workers": {"autoscaling": autoscaling}})),
                    ready(json!({"gateway": {"replicas": 2}, "engine": {"learningRate": 0.02}})),
                ],
            )
        }
        "alert" => (made, vec![(Step::Watch, Goal::Watching), (Step::Unwatch, Goal::Ready)]),
        "rollback" => {
            let mut quick = base;
            quick["upgrade"] = json!({"progressDeadline": "10s"});
            (
                vec![(Step::Create(quick), Goal::Ready)],
                vec![
                    (Step::Change(json!({"image": format!("hebb:{BROKEN}")})), Goal::RolledBack),
                    ready(json!({"image": "hebb:3"})),
                ],
            )
        }
        _ => return None,
    };
    Some(Workload { name, before, steps })
}

impl Workload {
    /// How many steps take pods away, so that whoever looks in time calls the cluster not ready once for each.
    pub fn harms(&self) -> usize {
        self.steps.iter().filter(|(step, _)| matches!(step, Step::Spoil | Step::Sicken)).count()
    }
}

impl Step {
    /// Does it.
    pub async fn take(&self, client: &Client, namespace: &str, stand_in: &StandIn) -> Result<(), Error> {
        let create = async |kind, object: Value| {
            let object: DynamicObject = serde_json::from_value(object)?;
            api(client, namespace, kind).create(&PostParams::default(), &object).await?;
            Ok::<_, Error>(())
        };
        let merge = async |kind, name: &str, patch: Value| {
            api(client, namespace, kind).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            Ok::<_, Error>(())
        };
        let delete =
            async |kind, name: &str| match api(client, namespace, kind).delete(name, &DeleteParams::background()).await
            {
                // The fault may have been just that.
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                done => done.map(|_| ()).map_err(Error::from),
            };
        let (group, version, kind, _) = CLUSTER;
        let head = |kind: &str, name: &str, spec: &Value| json!({"apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec});
        match self {
            Step::Create(spec) => create(CLUSTER, head(kind, NAME, spec)).await,
            Step::Change(spec) => merge(CLUSTER, NAME, json!({"spec": spec})).await,
            Step::Spoil => {
                delete(SERVICE, GATEWAY).await?;
                let wrong =
                    json!({"spec": {"replicas": 7, "template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
                merge(DEPLOYMENT, GATEWAY, wrong).await
            }
            Step::Sicken => stand_in.sicken(PATIENT).await,
            Step::Watch => {
                let spec = json!({
                    "targetRef": {"name": NAME}, "receivers": [{"name": "log", "log": {}}],
                    "routes": [{"receiver": "log"}],
                    "rules": [{
                        "name": "r", "expr": {"indicator": "queue_size", "operator": "GreaterThan", "threshold": 1},
                    }],
                });
                create(POLICY, head(POLICY.2, POLICY_NAME, &spec)).await
            }
            Step::Unwatch => delete(POLICY, POLICY_NAME).await,
            Step::Delete => delete(CLUSTER, NAME).await,
        }
    }
}

fn condition(object: &Value, type_: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

impl Goal {
    /// Nothing where it is reached; otherwise what is missing.
    pub async fn missing(self, client: &Client, namespace: &str) -> Result<Option<String>, Error> {
        if self == Goal::Gone {
            let left = left(client, namespace, None).await?;
            return Ok((!left.is_empty()).then(|| format!("still there: {}", left.join(", "))));
        }
        let Some(cluster) = api(client, namespace, CLUSTER).get_opt(NAME).await? else {
            return Ok(Some("the cluster is gone".to_owned()));
        };
        let cluster = serde_json::to_value(cluster)?;
        let status = &cluster["status"];
        let current = status["observedGeneration"] == cluster["metadata"]["generation"];
        let reached = current
            && match self {
                Goal::Ready => {
                    condition(&cluster, "Ready")
                        && status["phase"] == "Ready"
                        && status["currentRevision"] == status["updateRevision"]
                        && unspoiled(client, namespace).await?
                }
                Goal::Suspended => condition(&cluster, "Suspended") && !condition(&cluster, "Reconciling"),
                Goal::RolledBack => status["phase"] == "RolledBack",
                Goal::Watching => {
                    let policy = api(client, namespace, POLICY).get_opt(POLICY_NAME).await?;
                    condition(&serde_json::to_value(policy)?, "Ready")
                }
                Goal::Gone => false,
            };
        Ok((!reached).then(|| {
            let ready = status["conditions"].as_array().into_iter().flatten().find(|entry| entry["type"] == "Ready");
            format!(
                "{self:?}: phase {}, Ready {}",
                status["phase"],
                ready.map_or(&Value::Null, |entry| &entry["reason"])
            )
        }))
    }
}

/// Whether what hands and crashes spoil is well.
async fn unspoiled(client: &Client, namespace: &str) -> Result<bool, Error> {
    let service = api(client, namespace, SERVICE).get_opt(GATEWAY).await?;
    let Some(deployment) = api(client, namespace, DEPLOYMENT).get_opt(GATEWAY).await? else { return Ok(false) };
    let deployment = serde_json::to_value(deployment)?;
    let pods = list(client, namespace, POD).await?;
    Ok(service.is_some() && deployment["spec"]["replicas"] == 2 && pods.iter().all(is_ready))
}

/// What is left of a cluster: everything that carries its label or has it as an owner.
pub async fn left(client: &Client, namespace: &str, uid: Option<&str>) -> Result<Vec<String>, Error> {
    let mut left = Vec::new();
    for kind in KINDS {
        for object in list(client, namespace, kind).await? {
            let labelled = object["metadata"]["labels"][names::CLUSTER_LABEL] == NAME;
            let named = kind == CLUSTER && object["metadata"]["name"] == NAME;
            if labelled || named || owners(&object).any(|owner| Some(owner) == uid) {
                left.push(format!("{}/{}", kind.3, object["metadata"]["name"].as_str().unwrap_or_default()));
            }
        }
    }
    Ok(left)
}
