//! Pods as the decisions see them: a few facts out of what the API server says.

use std::time::Duration;

use hebb_api::names::{self, Role};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Annotation on workers that the ReplicaSet controller reads: the lowest goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub name: String,
    pub uid: String,
    pub role: Option<Role>,
    pub ready: bool,
    /// Its containers have started.
    pub running: bool,
    /// It was told to end.
    pub leaving: bool,
    /// For how long it should have ended, its grace included; nothing where it was ended by force, and somebody's finalizer
    /// keeps its object.
    pub overdue: Option<Duration>,
    /// Since it became ready, or stopped to be, or was made.
    pub in_this_state_for: Duration,
    /// Why a container doesn't start, in the kubelet's word.
    pub waiting: Option<String>,
    /// Restarts of its containers.
    pub restarts: i32,
    /// Digest of the template that it was made from.
    pub template: Option<String>,
    /// It was chosen to go first at a scale-down.
    pub marked: bool,
}

impl PodView {
    /// The facts at a time.
    pub fn new(pod: &Pod, now: Timestamp) -> Self {
        let metadata = &pod.metadata;
        let text = |map: Option<&std::collections::BTreeMap<String, String>>, key: &str| {
            map.and_then(|map| map.get(key)).cloned()
        };
        let role = text(metadata.labels.as_ref(), "app.kubernetes.io/component");
        let status = pod.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let containers = status.container_statuses.unwrap_or_default();
        let waiting = containers.iter().find_map(|container| {
            let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
            (!matches!(reason.as_str(), "ContainerCreating" | "PodInitializing")).then_some(reason)
        });
        let since = |then: Timestamp| Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO);
        let changed = ready.and_then(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
        let made = metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            role: role.as_deref().and_then(Role::of),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            running: !containers.is_empty()
                && containers
                    .iter()
                    .all(|container| container.state.as_ref().is_some_and(|state| state.running.is_some())),
            leaving: metadata.deletion_timestamp.is_some(),
            // The API server writes the time at which the grace ends.
            overdue: metadata
                .deletion_timestamp
                .as_ref()
                .filter(|_| metadata.deletion_grace_period_seconds != Some(0))
                .map(|time| since(time.0))
                .filter(|overdue| !overdue.is_zero()),
            in_this_state_for: changed.or(made).map_or(Duration::ZERO, since),
            waiting,
            restarts: containers.iter().map(|container| container.restart_count).sum(),
            template: text(metadata.annotations.as_ref(), names::TEMPLATE_ANNOTATION),
            marked: text(metadata.annotations.as_ref(), DELETION_COST).is_some(),
        }
    }
}

/// What is wrong with the pods, in the words of the kubelet and the scheduler; the first by name.
pub fn trouble(pods: &[Pod]) -> Option<String> {
    let mut troubles: Vec<String> = pods.iter().filter_map(pod_trouble).collect();
    troubles.sort();
    troubles.into_iter().next()
}

fn pod_trouble(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = serde_json::to_value(pod.status.as_ref()?).ok()?;
    for container in status["containerStatuses"].as_array().into_iter().flatten() {
        let waiting = &container["state"]["waiting"];
        match waiting["reason"].as_str() {
            None | Some("ContainerCreating" | "PodInitializing") => {}
            Some(reason) => {
                let message = waiting["message"].as_str().unwrap_or_default();
                return Some(format!("pod {name}: {reason} {message}").trim_end().to_owned());
            }
        }
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let unscheduled = conditions
        .into_iter()
        .find(|condition: &&Value| condition["type"] == "PodScheduled" && condition["status"] == "False")?;
    Some(format!("pod {name}: {}", unscheduled["message"].as_str().unwrap_or("can't be scheduled")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_kubelets_words_reach_the_user() {
        let pod = read(json!({
            "metadata": {"name": "demo-worker-0"},
            "status": {"containerStatuses": [{"name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }));
        assert_eq!(trouble(&[pod]).as_deref(), Some("pod demo-worker-0: ImagePullBackOff no such image"));
    }

    #[test]
    fn the_facts_are_read_at_their_time() {
        let pod = read(json!({
            "metadata": {
                "name": "w", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:10Z",
                "labels": {"app.kubernetes.io/component": "worker"},
            },
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"name": "w", "image": "x", "imageID": "", "ready": true, "restartCount": 2,
                    "state": {"running": {}}}],
            },
        }));
        let mut forced = pod.clone();
        forced.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(PodView::new(&forced, "2026-01-01T00:00:50Z".parse().unwrap()).overdue, None);
        let at = |text: &str| PodView::new(&pod, text.parse().unwrap());
        let early = at("2026-01-01T00:00:05Z");
        assert_eq!((early.role, early.ready, early.running, early.restarts), (Some(Role::Worker), true, true, 2));
        assert_eq!((early.leaving, early.overdue), (true, None));
        let late = at("2026-01-01T00:00:50Z");
        assert_eq!((late.overdue, late.in_this_state_for), (Some(Duration::from_secs(40)), Duration::from_secs(50)));
    }
}
