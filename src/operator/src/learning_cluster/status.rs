//! What a LearningCluster's status says: pure, from what was seen.

use std::time::Duration;

use hebb_api::names::{self, Role};
use hebb_api::scaling::{Decision, Load};
use hebb_api::{
    AutoscalingStatus, BackupStatus, DomainSpec, Endpoints, LearningCluster, LearningClusterSpec,
    LearningClusterStatus, RedisStatus, Replacement, RequestStatus, ScalingStrategy, Task, WorkersStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::backups;
use super::observe::number;
use super::plan::Live;
use super::pods::trouble;
use super::scrape::Scraped;
use super::topology::{Redis, Topology};
use super::{healing, upgrade};
use crate::conditions::{Desired, is_true, merge};

/// How far back the column of waiting entries looks.
const LAG_WINDOW: Duration = Duration::from_secs(30);
/// The reasons of the condition ScalingActive.
pub const REASONS: [&str; 8] =
    ["Alert", "OutOfBounds", "Fallback", "NoMetric", "QueueGrew", "QueueShrank", "Steady", "Hpa"];

/// Who takes writes in a Redis whose members elect them.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    /// Their pods.
    pub pods: Vec<String>,
    /// Slots of a Redis Cluster that nobody holds.
    pub uncovered: u32,
}

/// What the status is made from.
pub struct Seen<'a> {
    pub topology: &'a Topology,
    pub live: &'a Live,
    pub pods: &'a [Pod],
    /// The pods that take writes.
    pub writers: &'a Writers,
    /// What the coordinator said last; nothing while it can't be asked.
    pub scraped: Option<&'a Scraped>,
    /// The operator has only just begun to ask: until somebody could have answered, what stood before stands.
    pub early: bool,
    /// Why the backup that the cluster should begin with can't be restored.
    pub restore_failure: Option<&'a str>,
    /// How many entries waited lately.
    pub load: Option<Load>,
    pub upgrade: &'a upgrade::Verdict,
    pub healing: &'a healing::Verdict,
    /// The revision that the spec asks for.
    pub wanted: &'a str,
    /// The revision with which the cluster was ready last.
    pub current: Option<&'a str>,
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
    let object = upgrade::workload(seen.live, &seen.topology.object(role)).map(|(_, found)| found);
    let scaler = seen.topology.hpa.as_ref().filter(|_| role == Role::Worker && seen.topology.runs());
    let desired = match scaler {
        Some(scaler) => number(object, "/spec/replicas").max(scaler.min_replicas),
        None => seen.topology.desired(role),
    };
    let observed = object.is_some_and(|object| {
        object["status"]["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64()
    });
    let updated = number(object, "/status/updatedReplicas") >= desired;
    Count {
        desired,
        existing: number(object, "/status/replicas"),
        ready: number(object, "/status/readyReplicas"),
        // Where pods wait for somebody to delete them, the cluster is ready with both revisions.
        current: observed && (updated || seen.topology.on_delete),
    }
}

/// What coordinators said of themselves.
#[derive(Default)]
struct Told {
    leader: Option<String>,
    unowned: Option<u64>,
}

/// What they had said to the operator before this one: a restart must not call a cluster that works not ready.
fn told_before(cluster: &LearningCluster, former: &LearningClusterStatus) -> Told {
    // Of another spec, nobody has said yet that every partition has an owner.
    let same = former.observed_generation == cluster.metadata.generation;
    let owned = same && is_true(&former.conditions, "Ready");
    Told { leader: former.leader.clone(), unowned: owned.then_some(0) }
}

/// The status after a pass.
pub fn status(cluster: &LearningCluster, seen: &Seen<'_>, now: Timestamp) -> LearningClusterStatus {
    let topology = seen.topology;
    let former = cluster.status.clone().unwrap_or_default();
    let gateway = count(seen, Role::Gateway);
    let coordinator = count(seen, Role::Coordinator);
    let worker = count(seen, Role::Worker);
    let redis = count(seen, Role::Redis);
    let told = match seen.scraped {
        Some(scraped) => Told { leader: scraped.leader.clone(), unowned: scraped.unowned },
        None if seen.early => told_before(cluster, &former),
        None => Told::default(),
    };
    let leader = told.leader.filter(|_| topology.runs());
    let unowned = told.unowned;
    let lag_before = former.workers.as_ref().and_then(|workers| workers.lag.clone()).filter(|_| seen.early);

    let trouble = trouble(seen.pods);
    let because = |text: String| match &trouble {
        Some(trouble) => format!("{text}; {trouble}"),
        None => text,
    };
    let external = matches!(topology.redis, Redis::External(_));
    let redis_up = match &topology.redis {
        Redis::External(_) => leader.is_some(),
        Redis::Standalone(_) => redis.complete(),
        // It works without some of its replicas.
        Redis::Sentinel { .. } | Redis::Cluster { .. } => {
            let writers = seen.writers;
            writers.uncovered == 0
                && !writers.pods.is_empty()
                && writers.pods.iter().all(|pod| is_pod_ready(seen.pods, pod))
        }
    };
    let redis_complete = external || redis.complete();
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
            (false, _) if seen.writers.uncovered > 0 => {
                Desired::new("RedisAvailable", false, "SlotsUncovered", because(uncovered(seen.writers)))
            }
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
        scaling_active(cluster),
        upgrading(seen),
        Desired::new("Suspended", topology.suspended, if topology.suspended { "Suspended" } else { "Running" }, ""),
    ];
    let (ready, reason, message) = if topology.suspended {
        (false, "Suspended", "spec.suspend is true; what was learned is kept".to_owned())
    } else if let Some(fault) = topology.secrets.fault() {
        (false, "RedisCertificateInvalid", fault.message.clone())
    } else if let Some(failure) = seen.restore_failure.filter(|_| topology.awaits_restore) {
        (false, "RestoreFailed", failure.to_owned())
    } else if topology.awaits_restore {
        let message = format!("Job {} restores a backup first", names::restore_name(&topology.name));
        (false, "Restoring", because(message))
    } else if seen.writers.uncovered > 0 {
        (false, "RedisNotReady", because(uncovered(seen.writers)))
    } else if !redis_up {
        (false, "RedisNotReady", because("Redis is not ready".to_owned()))
    } else if !redis_complete {
        let message = format!("{} of {} servers of Redis are ready", redis.ready, redis.desired);
        (false, "RedisNotReady", because(message))
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
    if reason == "PartitionsUnowned" && unowned.is_none() && seen.early {
        // A restarted operator says nothing of a changed spec before somebody could have answered it.
        return former;
    }
    let was_ready = is_true(&former.conditions, "Initialized");
    let settled = ready
        || (topology.suspended && gateway.existing + worker.existing + coordinator.existing + redis.existing == 0);
    parts.extend(certificate_valid(topology));
    let stall = stalled(seen);
    // Never both: what waits for a person would be read as work under way, and waited for in vain.
    let reconciling = match (settled, stall.status) {
        (true, _) => Desired::new("Reconciling", false, "Settled", ""),
        (false, Some(true)) => Desired::new("Reconciling", false, "Stalled", ""),
        (false, _) => Desired::new("Reconciling", true, "Progressing", message.clone()),
    };
    parts.extend(backup_succeeded(cluster));
    parts.insert(0, Desired::new("Ready", ready, reason, message));
    parts.insert(1, reconciling);
    parts.insert(2, stall);
    parts.insert(
        3,
        Desired::new("Initialized", was_ready || ready, if was_ready || ready { "WasReady" } else { "NeverReady" }, ""),
    );

    let phase = match (topology.suspended, seen.upgrade, ready, was_ready) {
        (true, ..) => "Suspended",
        _ if topology.awaits_restore => "Restoring",
        (_, upgrade::Verdict::RolledBack(_), true, _) => "RolledBack",
        (_, upgrade::Verdict::Progressing(_), ..) => "Upgrading",
        (.., true, _) => "Ready",
        (.., false, true) => "Degraded",
        (.., false, false) => "Progressing",
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
            lag: seen.load.as_ref().and_then(lag).or(lag_before).filter(|_| !topology.suspended),
            selector: selector.join(","),
        }),
        redis: Some(redis_status(cluster, seen, redis, now)),
        version: Some(tag(&topology.image).to_owned()),
        image: Some(topology.image.clone()),
        current_revision: seen.current.map(str::to_owned),
        update_revision: Some(seen.wanted.to_owned()),
        upgrade: seen.upgrade.status().cloned(),
        autoscaling: former.autoscaling,
        replacements: former.replacements,
        request: former.request,
        backup: backup_status(cluster, seen),
        restored: former.restored,
        endpoints: Some(Endpoints {
            gateway: format!("http://{}", topology.host(Role::Gateway)),
            coordinator: format!("http://{}:{}", topology.host(Role::Coordinator), hebb_api::names::COORDINATOR_PORT),
        }),
    }
}

fn redis_status(cluster: &LearningCluster, seen: &Seen<'_>, count: Count, now: Timestamp) -> RedisStatus {
    let topology = seen.topology;
    let former = cluster.status.as_ref().and_then(|status| status.redis.clone()).unwrap_or_default();
    let shards = usize::try_from(topology.redis.shards()).unwrap_or_default();
    let pods = &seen.writers.pods;
    let (mode, primary) = match &topology.redis {
        Redis::Standalone(_) => ("Standalone", (count.ready > 0).then(|| topology.redis_pod(0))),
        Redis::Sentinel { .. } => ("Sentinel", pods.first().cloned()),
        Redis::Cluster { .. } if pods.len() == shards => ("Cluster", Some(format!("{shards} shards"))),
        Redis::Cluster { .. } => ("Cluster", Some(format!("{} of {shards} shards", pods.len()))),
        Redis::External(external) => ("External", Some(external.host.clone())),
    };
    let sentinel = matches!(topology.redis, Redis::Sentinel { .. });
    let primaries = if sentinel { Vec::new() } else { pods.clone() };
    let moved = match sentinel {
        true => former.primary.is_some() && primary.is_some() && former.primary != primary,
        // While a shard is without, nothing has moved yet.
        false => former.primaries.len() == shards && primaries.len() == shards && former.primaries != primaries,
    };
    // A shard that is without a primary for a moment has moved by the time that it has one.
    let primaries = if !former.primaries.is_empty() && primaries.len() < shards { former.primaries } else { primaries };
    RedisStatus {
        mode: mode.to_owned(),
        primary,
        primaries,
        ready_replicas: if topology.redis.own().is_some() { count.ready } else { 0 },
        last_failover_time: if moved { Some(whole_second(now)) } else { former.last_failover_time },
        sizing: sizing(&cluster.spec),
        image: topology.redis.own().map(|server| server.image.clone()),
    }
}

/// What the domains may learn at most, by the bounds in the spec, and the Redis that suits it. A domain that isn't listed
/// isn't counted.
fn sizing(spec: &LearningClusterSpec) -> Option<String> {
    let engine = &spec.engine;
    let learned = |domain: &DomainSpec| {
        let each = match domain.task {
            Task::Patterns => engine.max_local_patterns,
            Task::Classification | Task::Regression | Task::Governed => engine.memory.max_vectors,
            // What it has learned is as much as a thousand vectors, however many signals there were.
            Task::TimeSeriesClassification => 1_000,
        };
        i64::from(domain.partitions) * i64::from(each)
    };
    let most: i64 = spec.domains.iter().map(learned).sum();
    let advice = match most {
        0 => return None,
        1..1_000_000 => "one server holds that",
        1_000_000..10_000_000 => "three servers (mode Sentinel) are advised",
        _ => "six servers or more (mode Cluster) are advised",
    };
    Some(format!("at most {most} patterns: {advice}"))
}

fn uncovered(writers: &Writers) -> String {
    format!("{} of {} slots of Redis have no primary", writers.uncovered, hebb_redis::sharded::SLOTS)
}

fn is_pod_ready(pods: &[Pod], name: &str) -> bool {
    pods.iter().filter(|pod| pod.metadata.name.as_deref() == Some(name)).any(|pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// What is known of the backups. A request whose Job was made is not asked for again.
fn backup_status(cluster: &LearningCluster, seen: &Seen<'_>) -> Option<BackupStatus> {
    let former = cluster.status.as_ref().and_then(|status| status.backup.clone());
    match seen.topology.backup.as_ref().filter(|_| seen.topology.runs()).and_then(|backup| backup.request.clone()) {
        Some(request) => Some(BackupStatus { requested: Some(request), ..former.unwrap_or_default() }),
        None => former,
    }
}

/// The condition RedisCertificateValid, where connections to Redis are encrypted.
fn certificate_valid(topology: &Topology) -> Option<Desired> {
    const TYPE: &str = "RedisCertificateValid";
    let certificate = topology.secrets.certificate.as_ref()?;
    Some(match &certificate.pems {
        Ok(_) => Desired::new(TYPE, true, "Valid", format!("Secret {}", certificate.secret)),
        Err(fault) => Desired::new(
            TYPE,
            false,
            fault.reason,
            format!("{}; the workloads are left as they are until then", fault.message),
        ),
    })
}

/// The condition BackupSucceeded, where backups are wanted.
fn backup_succeeded(cluster: &LearningCluster) -> Option<Desired> {
    const TYPE: &str = "BackupSucceeded";
    cluster.spec.backup.as_ref()?;
    let known = cluster.status.as_ref().and_then(|status| status.backup.clone()).unwrap_or_default();
    Some(match (backups::failure(&known), known.last_backup.as_ref()) {
        (Some(failure), _) => {
            Desired::new(TYPE, false, "BackupFailed", format!("Job {}: {}", failure.job, failure.message))
        }
        (None, Some(last)) => Desired::new(TYPE, true, "BackedUp", last.name.clone()),
        (None, None) => Desired::unknown(TYPE, "NoBackupYet", "no backup has been made yet"),
    })
}

/// The condition Stalled: whether somebody has to do something.
fn stalled(seen: &Seen<'_>) -> Desired {
    if let Some(fault) = seen.topology.secrets.fault().filter(|fault| !fault.is_pending()) {
        return Desired::new("Stalled", true, "RedisCertificateInvalid", fault.message.clone());
    }
    if let Some(failure) = seen.restore_failure.filter(|_| seen.topology.awaits_restore) {
        let message = format!(
            "the backup can't be restored: {failure}; delete the Job {} to try again, or remove spec.restore to begin with nothing",
            names::restore_name(&seen.topology.name)
        );
        return Desired::new("Stalled", true, "RestoreFailed", message);
    }
    if let healing::Verdict::Exhausted(sick) = seen.healing {
        let message = format!(
            "pod {} doesn't recover ({}), and the budget of spec.healing is spent; replacing starts anew when the spec changes or every pod is well",
            sick.pod, sick.reason
        );
        return Desired::new("Stalled", true, "HealingExhausted", message);
    }
    match seen.upgrade {
        upgrade::Verdict::RolledBack(status) => Desired::new(
            "Stalled",
            true,
            "RolledBack",
            format!(
                "revision {} did not become ready within the progress deadline; the revision before runs",
                status.revision
            ),
        ),
        upgrade::Verdict::Late(status) => Desired::new(
            "Stalled",
            true,
            "ProgressDeadlineExceeded",
            format!("revision {} did not become ready within the progress deadline", status.revision),
        ),
        upgrade::Verdict::Steady | upgrade::Verdict::Progressing(_) => Desired::new("Stalled", false, "Working", ""),
    }
}

fn upgrading(seen: &Seen<'_>) -> Desired {
    match seen.upgrade {
        upgrade::Verdict::Progressing(status) => Desired::new(
            "UpgradeInProgress",
            true,
            "Progressing",
            match seen.topology.on_delete {
                false => format!("to revision {}; {} pods of it are ready", status.revision, status.updated_pods),
                true => format!(
                    "delete the other pods to bring them to revision {}; {} pods of it are ready",
                    status.revision, status.updated_pods
                ),
            },
        ),
        upgrade::Verdict::Late(_) => Desired::new("UpgradeInProgress", true, "ProgressDeadlineExceeded", ""),
        upgrade::Verdict::RolledBack(_) => Desired::new("UpgradeInProgress", false, "RolledBack", ""),
        upgrade::Verdict::Steady => Desired::new("UpgradeInProgress", false, "UpToDate", ""),
    }
}

fn scaling_active(cluster: &LearningCluster) -> Desired {
    match cluster.status.as_ref().and_then(|status| status.autoscaling.as_ref()) {
        Some(decision) => {
            let reason = REASONS.into_iter().find(|reason| *reason == decision.reason).unwrap_or("Steady");
            Desired::new("ScalingActive", !["Fallback", "NoMetric"].contains(&reason), reason, decision.message.clone())
        }
        None => Desired::new("ScalingActive", false, "Fixed", "spec.workers.replicas decides the number of workers"),
    }
}

/// The power of ten below which the waiting entries have stayed: coarse and slow, so that it is seldom written.
fn lag(load: &Load) -> Option<String> {
    let most = load.samples.iter().take_while(|sample| sample.age <= LAG_WINDOW).map(|sample| sample.max).max()?;
    Some(if most == 0 { "0".to_owned() } else { format!("<{}", 10u64.saturating_pow(most.ilog10() + 1)) })
}

/// How many waiting entries ask for more workers than these.
pub fn wake_above(cluster: &LearningCluster, workers: i32) -> Option<u64> {
    let scaling = cluster.spec.workers.autoscaling.as_ref()?;
    let can_grow = scaling.strategy == ScalingStrategy::Queue && workers < scaling.max_replicas;
    let workers = u64::try_from(workers).ok().filter(|_| can_grow)?;
    Some(workers.saturating_mul(u64::try_from(scaling.queue_depth_per_worker).unwrap_or(1)))
}

/// The replacements that still count; a changed spec gets a new budget.
pub fn counting_replacements(cluster: &LearningCluster, sick: &[healing::Sick], now: Timestamp) -> Vec<Replacement> {
    let Some(former) = &cluster.status else { return Vec::new() };
    if former.observed_generation != cluster.metadata.generation {
        return Vec::new();
    }
    healing::remembered(&cluster.spec.healing, &former.replacements, sick, now)
}

/// As fine as Kubernetes writes times.
pub fn whole_second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The former status with what is about to be done.
pub fn intent(
    former: &LearningClusterStatus,
    decision: Option<&Decision>,
    upgrade: &upgrade::Verdict,
    replacements: &[Replacement],
    request: Option<RequestStatus>,
    now: Timestamp,
) -> LearningClusterStatus {
    let autoscaling = decision.map(|decision| {
        let standing = former.autoscaling.as_ref().filter(|standing| standing.desired == decision.desired);
        match standing {
            // A number that stays keeps its story, but for whether there is somebody to ask.
            Some(standing) if !is_news(&standing.reason, decision.reason) => standing.clone(),
            _ => AutoscalingStatus {
                desired: decision.desired,
                reason: decision.reason.to_owned(),
                message: decision.message.clone(),
                last_scale_time: match standing {
                    Some(standing) => standing.last_scale_time.clone(),
                    None => former.autoscaling.as_ref().map(|_| whole_second(now)),
                },
            },
        }
    });
    LearningClusterStatus {
        autoscaling,
        upgrade: upgrade.status().cloned(),
        replacements: replacements.to_vec(),
        request: request.or_else(|| former.request.clone()),
        ..former.clone()
    }
}

/// Whether another reason for the same number is worth a write.
fn is_news(standing: &str, now: &str) -> bool {
    let blind = |reason: &str| matches!(reason, "Fallback" | "NoMetric");
    blind(standing) != blind(now)
        || (now == "Hpa") != (standing == "Hpa")
        || (standing == "Fallback") != (now == "Fallback")
}

/// The cluster is ready with what its spec asks for: the upgrade has come to its end.
pub fn settle_upgrade(status: &mut LearningClusterStatus, wanted: &str, generation: Option<i64>, now: Timestamp) {
    status.current_revision = Some(wanted.to_owned());
    status.upgrade = None;
    status.phase = Some("Ready".to_owned());
    let part = vec![Desired::new("UpgradeInProgress", false, "UpToDate", "")];
    let renewed = merge(&status.conditions, part, generation, now);
    for condition in &mut status.conditions {
        if let Some(new) = renewed.iter().find(|new| new.type_ == condition.type_) {
            *condition = new.clone();
        }
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
    if stalled {
        // Of a pass that merely failed, the image that was chosen and the healing budget are still those of the former spec.
        status.observed_generation = generation;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_follows_the_bounds() {
        let advice = |partitions: i32| {
            let domain = DomainSpec { name: "a".to_owned(), task: Task::Patterns, partitions };
            sizing(&LearningClusterSpec { domains: vec![domain; 64], ..LearningClusterSpec::default() }).unwrap()
        };
        assert_eq!(advice(1), "at most 640000 patterns: one server holds that");
        assert!(advice(2).contains("Sentinel") && advice(64).contains("Cluster"));
        assert_eq!(sizing(&LearningClusterSpec::default()), None);
    }

    #[test]
    fn a_restarted_operator_takes_what_stood_for_the_answer_that_it_has_no_time_to_have() {
        let cluster = |observed: i64, ready: &str| -> LearningCluster {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
                "metadata": {"name": "demo", "generation": 3}, "spec": {},
                "status": {
                    "observedGeneration": observed, "leader": "demo-coordinator-0",
                    "conditions": [{
                        "type": "Ready", "status": ready, "reason": "Ready", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z",
                    }],
                },
            }))
            .unwrap()
        };
        let told = |cluster: &LearningCluster| {
            let told = told_before(cluster, cluster.status.as_ref().unwrap());
            (told.leader, told.unowned)
        };
        let leader = Some("demo-coordinator-0".to_owned());
        assert_eq!(told(&cluster(3, "True")), (leader.clone(), Some(0)));
        assert_eq!(told(&cluster(3, "False")), (leader.clone(), None));
        assert_eq!(told(&cluster(2, "True")), (leader, None), "nobody has said so of the new spec");
    }

    #[test]
    fn the_version_is_the_tag_of_the_image() {
        assert_eq!(tag("localhost:5000/hebb/hebb:1.2"), "1.2");
        assert_eq!(tag("hebb"), "latest");
        assert_eq!(tag("hebb@sha256:ab"), "sha256:ab");
    }
}
