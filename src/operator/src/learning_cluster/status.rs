//! What a LearningCluster's status says: pure, from what was seen.

use hebb_api::names::Role;
use hebb_api::{Endpoints, LearningCluster, LearningClusterStatus, RedisStatus, WorkersStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::observe::number;
use super::plan::Live;
use super::render::Kind;
use super::scrape::Scraped;
use super::topology::{Redis, Topology};
use crate::conditions::{Desired, is_true, merge};

/// What the status is made from.
pub struct Seen<'a> {
    pub topology: &'a Topology,
    pub live: &'a Live,
    pub pods: &'a [Pod],
    /// What the coordinator said last; nothing while it can't be asked.
    pub scraped: Option<&'a Scraped>,
}

/// Ready and existing pods of a role, and whether its workload has taken up the newest template.
#[derive(Clone, Copy, Debug)]
struct Count {
    desired: i32,
    existing: i32,
    ready: i32,
    current: bool,
}

impl Count {
    fn complete(self) -> bool {
        self.ready >= self.desired && self.existing <= self.desired && self.current
    }
}

fn count(seen: &Seen<'_>, role: Role) -> Count {
    let kind = if role == Role::Gateway { Kind::Deployment } else { Kind::StatefulSet };
    let object = seen.live.get(&(kind, seen.topology.object(role)));
    let desired = seen.topology.desired(role);
    let observed = object.is_some_and(|object| {
        object["status"]["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64()
    });
    let updated = number(object, "/status/updatedReplicas") >= desired;
    Count {
        desired,
        existing: number(object, "/status/replicas"),
        ready: number(object, "/status/readyReplicas"),
        current: observed && updated,
    }
}

/// The status after a pass.
pub fn status(cluster: &LearningCluster, seen: &Seen<'_>, now: Timestamp) -> LearningClusterStatus {
    let topology = seen.topology;
    let former = cluster.status.clone().unwrap_or_default();
    let gateway = count(seen, Role::Gateway);
    let coordinator = count(seen, Role::Coordinator);
    let worker = count(seen, Role::Worker);
    let redis = count(seen, Role::Redis);
    let leader = seen.scraped.and_then(|scraped| scraped.leader.clone()).filter(|_| !topology.suspended);
    let unowned = seen.scraped.and_then(|scraped| scraped.unowned);

    let trouble = trouble(seen.pods);
    let because = |text: String| match &trouble {
        Some(trouble) => format!("{text}; {trouble}"),
        None => text,
    };
    let external = matches!(topology.redis, Redis::External(_));
    let redis_up = if external { leader.is_some() } else { redis.complete() };
    let gateway_up = gateway.ready > 0 && gateway.desired > 0;
    let mut parts = vec![
        match (external, redis_up) {
            (true, true) => {
                Desired::new("RedisAvailable", true, "External", "the cluster works with the External server")
            }
            (true, false) => Desired::unknown(
                "RedisAvailable",
                "External",
                because("no coordinator has reported that the External server works".to_owned()),
            ),
            (false, up) => Desired::new(
                "RedisAvailable",
                up,
                if up { "Ready" } else { "NotReady" },
                if up { String::new() } else { because("Redis is not ready".to_owned()) },
            ),
        },
        match &leader {
            Some(leader) => Desired::new("LeaderElected", true, "Elected", format!("{leader} leads")),
            None if topology.suspended => Desired::new("LeaderElected", false, "Suspended", "the cluster is suspended"),
            None => Desired::new(
                "LeaderElected",
                false,
                "NoLeader",
                because(format!("no coordinator leads; {} of {} are ready", coordinator.ready, coordinator.desired)),
            ),
        },
        Desired::new(
            "WorkersAvailable",
            worker.ready >= worker.desired,
            if worker.ready >= worker.desired { "Ready" } else { "NotReady" },
            if worker.ready >= worker.desired {
                String::new()
            } else {
                because(format!("{} of {} workers are ready", worker.ready, worker.desired))
            },
        ),
        Desired::new(
            "GatewayAvailable",
            gateway_up,
            if gateway_up { "Ready" } else { "NotReady" },
            if gateway_up {
                String::new()
            } else {
                because(format!("{} of {} gateways are ready", gateway.ready, gateway.desired))
            },
        ),
        Desired::new("Suspended", topology.suspended, if topology.suspended { "Suspended" } else { "Running" }, ""),
    ];
    let (ready, reason, message) = if topology.suspended {
        (false, "Suspended", "spec.suspend is true; what was learned is kept".to_owned())
    } else if !redis_up {
        (false, "RedisNotReady", because("Redis is not ready".to_owned()))
    } else if leader.is_none() {
        (false, "NoLeader", because("no coordinator leads".to_owned()))
    } else if !worker.complete() {
        (false, "WorkersNotReady", because(format!("{} of {} workers are ready", worker.ready, worker.desired)))
    } else if !coordinator.complete() {
        (
            false,
            "CoordinatorsNotReady",
            because(format!("{} of {} coordinators are ready", coordinator.ready, coordinator.desired)),
        )
    } else if !gateway.complete() {
        (false, "GatewaysNotReady", because(format!("{} of {} gateways are ready", gateway.ready, gateway.desired)))
    } else if unowned != Some(0) && worker.desired > 0 {
        (
            false,
            "PartitionsUnowned",
            because(match unowned {
                Some(unowned) => format!("{unowned} partition(s) have no owner"),
                None => "the coordinator hasn't said whether every partition has an owner".to_owned(),
            }),
        )
    } else {
        (true, "Ready", String::new())
    };
    let was_ready = is_true(&former.conditions, "Initialized");
    let settled = ready
        || (topology.suspended && gateway.existing + worker.existing + coordinator.existing + redis.existing == 0);
    parts.insert(0, Desired::new("Ready", ready, reason, message.clone()));
    parts.insert(
        1,
        Desired::new(
            "Reconciling",
            !settled,
            if settled { "Settled" } else { "Progressing" },
            if settled { String::new() } else { message },
        ),
    );
    parts.insert(2, Desired::new("Stalled", false, "Working", ""));
    parts.insert(
        3,
        Desired::new("Initialized", was_ready || ready, if was_ready || ready { "WasReady" } else { "NeverReady" }, ""),
    );

    let phase = match (topology.suspended, ready, was_ready) {
        (true, _, _) => "Suspended",
        (_, true, _) => "Ready",
        (_, false, true) => "Degraded",
        (_, false, false) => "Progressing",
    };
    let selector: Vec<String> = hebb_api::names::role_selector(&topology.name, Role::Worker)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    LearningClusterStatus {
        observed_generation: cluster.metadata.generation,
        phase: Some(phase.to_owned()),
        conditions: merge(&former.conditions, parts, cluster.metadata.generation, now),
        leader,
        workers: Some(WorkersStatus {
            replicas: worker.existing,
            ready: worker.ready,
            desired: worker.desired,
            summary: format!("{}/{}", worker.ready, worker.desired),
            selector: selector.join(","),
        }),
        redis: Some(match &topology.redis {
            Redis::Standalone { .. } => RedisStatus {
                mode: "Standalone".to_owned(),
                primary: (redis.ready > 0).then(|| format!("{}-0", topology.object(Role::Redis))),
                ready_replicas: redis.ready,
            },
            Redis::External(external) => {
                RedisStatus { mode: "External".to_owned(), primary: Some(external.host.clone()), ready_replicas: 0 }
            }
        }),
        version: Some(tag(&topology.image).to_owned()),
        image: Some(topology.image.clone()),
        endpoints: Some(Endpoints {
            gateway: format!("http://{}", topology.host(Role::Gateway)),
            coordinator: format!("http://{}:{}", topology.host(Role::Coordinator), hebb_api::names::COORDINATOR_PORT),
        }),
    }
}

/// The status of a cluster that can't be worked with, or whose last write failed.
pub fn failed(
    cluster: &LearningCluster,
    stalled: bool,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> LearningClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let generation = cluster.metadata.generation;
    let parts = vec![
        Desired::new("Ready", false, reason, message),
        Desired::new("Reconciling", !stalled, reason, message),
        Desired::new("Stalled", stalled, reason, if stalled { message } else { "" }),
    ];
    let mut conditions = merge(&status.conditions, parts, generation, now);
    let kept =
        status.conditions.iter().filter(|old| !["Ready", "Reconciling", "Stalled"].contains(&old.type_.as_str()));
    conditions.extend(kept.cloned());
    status.conditions = conditions;
    status.observed_generation = generation;
    status.phase = Some(if stalled { "Invalid" } else { "Degraded" }.to_owned());
    status
}

/// The status of a cluster that the controller was told to leave alone.
pub fn paused(cluster: &LearningCluster, now: Timestamp) -> LearningClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let message = "the annotation hebb.dev/paused is true; nothing is changed until it is removed";
    let part = vec![Desired::new("Reconciling", false, "Paused", message)];
    let generation = cluster.metadata.generation;
    let mut conditions = merge(&status.conditions, part, generation, now);
    conditions.extend(status.conditions.iter().filter(|old| old.type_ != "Reconciling").cloned());
    status.conditions = conditions;
    status.phase = Some("Paused".to_owned());
    status
}

fn tag(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.rsplit_once('@').or_else(|| name.rsplit_once(':')).map_or("latest", |(_, tag)| tag)
}

/// What is wrong with the pods, in the words of the kubelet and the scheduler; the first by name.
fn trouble(pods: &[Pod]) -> Option<String> {
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
    use super::*;

    #[test]
    fn the_version_is_the_tag_of_the_image() {
        assert_eq!(tag("localhost:5000/hebb/hebb:1.2"), "1.2");
        assert_eq!(tag("hebb"), "latest");
        assert_eq!(tag("hebb@sha256:ab"), "sha256:ab");
    }

    #[test]
    fn the_kubelets_words_reach_the_user() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "demo-worker-0"},
            "status": {"containerStatuses": [{"name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
        }))
        .unwrap();
        assert_eq!(trouble(&[pod]).as_deref(), Some("pod demo-worker-0: ImagePullBackOff no such image"));
    }
}
