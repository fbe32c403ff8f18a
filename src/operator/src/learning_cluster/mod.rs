//! The LearningCluster controller: observe → topology → plan → apply → status. Only the middle decides.

mod apply;
mod backups;
pub mod certificate;
pub mod elections;
mod healing;
pub mod known;
pub mod observe;
pub mod plan;
pub mod pods;
mod quantity;
pub mod render;
mod renewal;
pub mod requests;
pub mod scrape;
mod status;
pub mod topology;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_api::names::{self, Role};
use hebb_api::scaling::{self, Decision, Load};
use hebb_api::{HealingSpec, LearningCluster, LearningClusterStatus, RedisMode, Replacement, ScalingStrategy};
use hebb_redis::Group;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use self::apply::{ApplyError, Done, apply};
use self::certificate::Fault;
use self::elections::{Members, Primaries};
use self::plan::{Because, Live, Step, plan};
use self::pods::PodView;
use self::render::{WORKLOADS, render};
use self::requests::{Ask, Asked, Request};
use self::scrape::{Scraped, Target};
use self::topology::{Redis, Topology, TopologyError};
use self::upgrade::Revision;
use crate::conditions::is_true;
use crate::context::Context;
use crate::unreadable::refuse;

/// One pass reads some thirty objects and writes at most twenty; a slow API server takes seconds for that.
const PASS_DEADLINE: Duration = Duration::from_secs(30);
/// How soon a cluster that isn't ready is looked at again, should no watch call first: what hangs is told by time alone.
const RECHECK_AFTER: Duration = Duration::from_secs(3);
/// The same for one that was never ready: pods that start call, and a thousand clusters may be waiting for theirs.
const FIRST_RECHECK_AFTER: Duration = Duration::from_secs(15);
/// How often a cluster that has more workers than the fewest is looked at: whether it can do with less.
const SHRINK_AFTER: Duration = Duration::from_secs(10);
/// How often a cluster at rest is looked at again, should a watch have missed something.
const RESYNC_AFTER: Duration = Duration::from_secs(300);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {what}")]
    Observe { what: &'static str, source: kube::Error },
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
    #[error("the pass took longer than {} s", PASS_DEADLINE.as_secs())]
    Deadline,
}

impl Error {
    fn reason(&self) -> &'static str {
        match self {
            Error::Observe { .. } => "ObserveFailed",
            Error::Topology(_) => "InvalidSpec",
            Error::Apply(ApplyError::Foreign { .. }) => "NameTaken",
            Error::Apply(_) => "ApplyFailed",
            Error::Status(_) => "StatusFailed",
            Error::Deadline => "Deadline",
        }
    }

    /// Whether nothing can be made any more because the namespace is going.
    fn is_of_terminating_namespace(&self) -> bool {
        let Error::Apply(ApplyError::Apply { source: kube::Error::Api(status), .. }) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.is_forbidden() && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// Whether trying again can't help before somebody changes something.
    fn is_stalled(&self) -> bool {
        matches!(self, Error::Topology(_) | Error::Apply(ApplyError::Foreign { .. }))
    }
}

/// What a pass found out.
struct Pass {
    status: LearningClusterStatus,
    done: Vec<Done>,
    /// When the cluster is looked at again, should no watch call first.
    recheck: Duration,
}

/// Brings one cluster to what its spec says, or says on it why it can't be read.
pub async fn reconcile(guard: Arc<DeserializeGuard<LearningCluster>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    match &guard.0 {
        Ok(cluster) => converge(cluster, &context, started).await,
        Err(invalid) => {
            let refused = timeout(PASS_DEADLINE, refuse::<LearningCluster>(invalid, &context)).await;
            context.metrics.reconciled("LearningCluster", "failed", started.elapsed());
            refused.map_err(|_| Error::Deadline)?.map_err(Error::Status)?;
            Ok(Action::await_change())
        }
    }
}

async fn converge(cluster: &LearningCluster, context: &Context, started: Instant) -> Result<Action, Error> {
    let key = ObjectRef::from_obj(cluster);
    let uid = cluster.uid().unwrap_or_default();
    // Later, each change is seen at once.
    if cluster.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Initialized")) {
        return look_after(cluster, context, key, &uid, started).await;
    }
    if let Some(rest) = context.paces.rest(&uid) {
        return Ok(Action::requeue(rest));
    }
    let result = look_after(cluster, context, key, &uid, started).await;
    context.paces.ended(&uid, started.elapsed());
    result
}

async fn look_after(
    cluster: &LearningCluster,
    context: &Context,
    key: ObjectRef<LearningCluster>,
    uid: &str,
    started: Instant,
) -> Result<Action, Error> {
    let mut cluster = cluster.clone();
    if context.written.is_stale(uid, cluster.metadata.resource_version.as_deref()) {
        let Some(fresh) = fetch(&cluster, context).await? else { return Ok(Action::await_change()) };
        cluster = fresh;
    }
    if cluster.metadata.deletion_timestamp.is_some() {
        // The children go with their owner, and volumes by the policy of their StatefulSet.
        context.coordinators.forget(&key);
        context.elections.forget(&key);
        return Ok(Action::await_change());
    }
    let outcome = timeout(PASS_DEADLINE, pass(&cluster, context, key)).await.unwrap_or(Err(Error::Deadline));
    if let Err(error) = &outcome
        && error.is_of_terminating_namespace()
    {
        // Everything here is about to go, this cluster too.
        context.metrics.reconciled("LearningCluster", "waiting", started.elapsed());
        return Ok(Action::requeue(RESYNC_AFTER));
    }
    let (status, done) = match &outcome {
        Ok(pass) => (pass.status.clone(), pass.done.as_slice()),
        Err(error) => {
            // What the pass wrote down before it failed still stands.
            if let Some(fresh) = fetch(&cluster, context).await? {
                cluster = fresh;
            }
            let message = with_causes(error);
            (status::failed(&cluster, error.is_stalled(), error.reason(), &message, Timestamp::now()), &[][..])
        }
    };
    let reported = report(&cluster, context, &status, done).await;
    let result = outcome.and_then(|pass| reported.map(|()| pass));
    let settled = is_true(&status.conditions, "Ready");
    let word = match &result {
        Ok(_) if settled => "settled",
        Ok(_) => "waiting",
        Err(_) => "failed",
    };
    context.metrics.reconciled("LearningCluster", word, started.elapsed());
    result.map(|pass| {
        context.failures.forget(uid);
        Action::requeue(pass.recheck)
    })
}

/// The uid of a cluster: the next one of its name is another one.
fn uid_of(key: &ObjectRef<LearningCluster>) -> String {
    key.extra.uid.clone().unwrap_or_default()
}

/// The cluster as the API server has it; nothing where it is gone, or can't be read any more.
async fn fetch(cluster: &LearningCluster, context: &Context) -> Result<Option<LearningCluster>, Error> {
    let api: Api<DeserializeGuard<LearningCluster>> =
        Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let found = timeout(PASS_DEADLINE, api.get_opt(&cluster.name_any())).await.map_err(|_| Error::Deadline)?;
    let found = found.map_err(|source| Error::Observe { what: "the LearningCluster", source })?;
    Ok(found.and_then(|guard| guard.0.ok()).filter(|found| found.metadata.uid == cluster.metadata.uid))
}

/// What follows a failed pass: another one, later with each failure in a row.
pub fn on_error(cluster: Arc<DeserializeGuard<LearningCluster>>, error: &Error, context: Arc<Context>) -> Action {
    warn!(cluster = %ObjectRef::from_obj(&*cluster), error = with_causes(error), "a pass failed");
    Action::requeue(context.failures.next_delay(&cluster.uid().unwrap_or_default()))
}

async fn pass(cluster: &LearningCluster, context: &Context, key: ObjectRef<LearningCluster>) -> Result<Pass, Error> {
    let now = Timestamp::now();
    if cluster.annotations().get(names::PAUSED_ANNOTATION).is_some_and(|value| value == "true") {
        return Ok(Pass { status: status::paused(cluster, now), done: Vec::new(), recheck: RESYNC_AFTER });
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let client = &context.client;
    let observing = |what| move |source| Error::Observe { what, source };
    let own_redis = cluster.spec.redis.mode != RedisMode::External;
    let domain = &context.defaults.cluster_domain;
    let known = &context.known;
    let secrets = observe::secrets(client, known, cluster, domain, now).await.map_err(observing("secrets"))?;
    let record = observe::revision(client, known, cluster).await.map_err(observing("revision"))?;
    // Before the pods: those of a Job that has ended have said their word.
    let jobs = observe::jobs(client, cluster).await.map_err(observing("jobs"))?;
    let found: Vec<Pod> = observe::pods(client, cluster).await.map_err(observing("pods"))?;
    let pods: Vec<PodView> = found.iter().map(|pod| PodView::new(pod, now)).collect();

    let ended = backups::ended(&jobs, &found);
    let cluster = &backups::noted(cluster, &ended);

    let mut requests = context.requests.take(&key);
    let decision = decide_workers(cluster, context, &key, &pods, &mut requests);
    let workers = decision.as_ref().map_or(cluster.spec.workers.replicas, |decision| decision.desired);
    let ready = record.as_ref().map(|(_, revision)| revision);
    let revision = Revision::of(
        &cluster.spec,
        &topology::image(cluster, &context.defaults, ready),
        &topology::redis_image(cluster, &context.defaults, ready),
    );
    let wanted = revision.id();
    let mut topology = Topology::new(cluster, &context.defaults, secrets.clone(), workers, ready)?;
    let mut desired = render(&topology);
    let mut templates = render::templates(&topology, &desired);
    let upgrade = upgrade::decide(
        &cluster.spec.upgrade,
        &upgrade::Known {
            wanted: &wanted,
            current: record.as_ref().map(|(id, _)| id.as_str()),
            status: cluster.status.as_ref().and_then(|status| status.upgrade.as_ref()),
            updated_pods: updated(&pods, &templates),
            suspended: !topology.runs(),
        },
        now,
    );
    if let (upgrade::Verdict::RolledBack(_), Some((_, current))) = (&upgrade, &record) {
        let mut before = cluster.clone();
        before.spec = current.put_into(&cluster.spec);
        topology = Topology::new(&before, &context.defaults, secrets, workers, ready)?;
        desired = render(&topology);
        templates = render::templates(&topology, &desired);
    }
    let look = known.leave_out(&topology.uid, &namespace, desired);
    let mut live = observe::live(client, &namespace, &look).await.map_err(observing("children"))?;

    let writers = writers(&topology, context.elections.primaries(&key), cluster);
    let ready = |name: Option<&String>| {
        pods.iter().any(|pod| pod.role == Some(Role::Redis) && pod.ready && name.is_none_or(|name| *name == pod.name))
    };
    let redis_up = ready(None) && writers.uncovered == 0 && writers.pods.iter().all(|name| ready(Some(name)));
    let heard = context.coordinators.heard(&key);
    // Without a certificate a pod that is replaced doesn't come back.
    let examined: &[PodView] = if topology.secrets.fault().is_some() { &[] } else { &pods };
    let sick = healing::sick(&healing::Patients {
        pods: examined,
        templates: &templates,
        heard: heard.as_ref().filter(|_| topology.runs()),
        redis_up: !own_redis || redis_up,
    });
    let former = cluster.status.clone().unwrap_or_default();
    let mut replacements = status::counting_replacements(cluster, &sick, now);
    let healing = healing::decide(&cluster.spec.healing, &sick, &replacements, now);
    let asked = Asked::of(cluster);
    let mut answered = None;
    if let Some(asked) = &asked {
        let (answer, answers) = oneshot::channel();
        match &asked.what {
            Ok(what) => requests.push(Request { what: *what, answer }),
            // An error says that nobody waits, and somebody does.
            Err(problem) => drop(answer.send(Err(problem.clone()))),
        }
        answered = Some(answers);
    }
    let has_others = matches!(topology.redis, Redis::Sentinel { .. } | Redis::Cluster { .. });
    let primaries: &[String] = if has_others { &writers.pods } else { &[] };
    let mut patients = admit(requests, &pods, primaries, &cluster.spec.healing, &mut replacements, now);
    if let healing::Verdict::Replace(sick) = &healing {
        let recorded = healing::is_recorded(sick, &replacements);
        if recorded || healing::room(&cluster.spec.healing, &replacements) > 0 {
            replacements.extend((!recorded).then(|| sick.replacement(now)));
            patients.push(sick.clone());
        }
    }
    let request =
        asked.zip(answered).and_then(|(asked, mut answers)| Some(asked.answered(answers.try_recv().ok()?, now)));
    // Written before it is done, so that a crash in between neither repeats a decision nor takes it back.
    let intent = status::intent(&former, decision.as_ref(), &upgrade, &replacements, request, now);
    let cluster = &record_intent(cluster, context, intent).await?;

    let steps = plan(&look.at, &live, &topology.uid);
    let steps = match topology.on_delete {
        true => steps,
        false => upgrade::hold_back(steps, &live, &templates, |role| topology.object(role)),
    };
    let steps = hold_workloads(steps, topology.secrets.fault());
    let scraped = context.coordinators.answer(&key);
    let early = context.coordinators.is_early(&key);
    let workers_live = upgrade::workload(&live, &topology.object(Role::Worker)).map(|(_, found)| found);
    let fewer = observe::number(workers_live, "/spec/replicas") - topology.desired(Role::Worker);
    if fewer > 0 && topology.runs() && topology.hpa.is_none() {
        let states = scraped.as_ref().map(Scraped::state_bytes).unwrap_or_default();
        let victims = scaling::victims(&states, usize::try_from(fewer).unwrap_or(0));
        apply::mark(client, &namespace, &pods, &victims, &context.metrics).await?;
    }
    let applied = apply(client, &namespace, &topology.uid, steps, &context.metrics).await;
    if let Err(ApplyError::Foreign { kind, name }) = &applied {
        known.found_hidden(&topology.uid, (*kind, name.clone()));
    }
    let (done, written) = applied?;
    live.extend(written);
    let undone: Vec<_> = plan(&look.at, &live, &topology.uid).iter().map(Step::key).collect();
    known.judge(&topology.uid, &look, &live, &undone);
    for sick in &patients {
        apply::replace(client, &namespace, sick, &context.metrics).await?;
        warn!(cluster = %key, pod = sick.pod, reason = sick.reason, "replaced a pod that didn't recover");
        let note = format!("pod {} didn't recover ({}): it is replaced", sick.pod, sick.reason);
        context.tell(cluster, EventType::Warning, "ReplacedPod", "Heal", note).await;
    }
    if let Some(sick) = outdated(&topology, &live, &templates, &pods, &writers.pods) {
        apply::replace(client, &namespace, &sick, &context.metrics).await?;
        info!(cluster = %key, pod = sick.pod, "renewing a pod of Redis");
    }
    follow_redis(context, &key, &topology);
    if !topology.runs() {
        context.coordinators.forget(&key);
    } else {
        let host = topology.host(Role::Coordinator);
        context.coordinators.follow(
            key.clone(),
            Target {
                url: format!("http://{host}:{}/api/v1/status", names::COORDINATOR_PORT),
                token: topology.secrets.token.clone(),
                wake_above: status::wake_above(cluster, workers),
                scaled: scales_by_queue(cluster),
            },
        );
    }
    let seen = status::Seen {
        topology: &topology,
        live: &live,
        pods: &found,
        writers: &writers,
        scraped: scraped.as_ref(),
        early,
        restore_failure: backups::restore_failure(&topology.name, &ended),
        load: context.coordinators.load(&key),
        upgrade: &upgrade,
        healing: &healing,
        wanted: &wanted,
        current: record.as_ref().map(|(id, _)| id.as_str()),
    };
    let mut status = status::status(cluster, &seen, now);
    if is_true(&status.conditions, "Ready")
        && status.observed_generation == cluster.metadata.generation
        && upgrade.is_on_wanted()
        && !(topology.on_delete && has_outdated(&pods, &templates))
        && record.as_ref().is_none_or(|(id, _)| *id != wanted)
    {
        let child = render::revision_record(&topology, &wanted, &revision.encode());
        let step = Step::Apply { child, because: Because::Changed };
        apply(client, &namespace, &topology.uid, vec![step], &context.metrics).await?;
        status::settle_upgrade(&mut status, &wanted, cluster.metadata.generation, now);
        if record.is_some() {
            let note = format!("every pod runs revision {wanted} with image {}", topology.image);
            context.tell(cluster, EventType::Normal, "Upgraded", "Upgrade", note).await;
        }
    }
    let well = is_true(&status.conditions, "Ready") && sick.is_empty() && !early;
    // Nobody calls when somebody's certificate has come.
    let watched = !is_true(&status.conditions, "Initialized") && topology.secrets.fault().is_none();
    let recheck = match (well, workers_may_shrink(cluster, workers)) {
        (false, _) if watched && sick.is_empty() => FIRST_RECHECK_AFTER,
        (false, _) => RECHECK_AFTER,
        (true, true) => SHRINK_AFTER,
        (true, false) => RESYNC_AFTER,
    };
    Ok(Pass { status, done, recheck })
}

/// Without the workloads while their Redis has no certificate that is of use: what runs goes on as it is.
fn hold_workloads(mut steps: Vec<Step>, fault: Option<&Fault>) -> Vec<Step> {
    steps.retain(|step| fault.is_none() || !WORKLOADS.contains(&step.key().0));
    steps
}

/// The pods that take writes by the newest elections; while nobody answers, those that did when somebody last answered.
fn writers(topology: &Topology, newest: Option<Primaries>, cluster: &LearningCluster) -> status::Writers {
    let former = || cluster.status.as_ref().and_then(|status| status.redis.clone()).unwrap_or_default();
    match (&topology.redis, newest) {
        (Redis::Standalone(_) | Redis::External(_), _) => status::Writers::default(),
        (_, Some(newest)) => {
            let numbers = newest.members.iter().filter_map(|member| i32::try_from(*member).ok());
            let pods = numbers.map(|member| topology.redis_pod(member)).collect();
            status::Writers { pods, uncovered: newest.uncovered }
        }
        (Redis::Sentinel { .. }, None) => {
            status::Writers { pods: former().primary.into_iter().collect(), uncovered: 0 }
        }
        (Redis::Cluster { .. }, None) => status::Writers { pods: former().primaries, uncovered: 0 },
    }
}

/// The pod of a Redis whose members find each other that is to be renewed, once its StatefulSet has taken up the newest template.
fn outdated(
    topology: &Topology,
    live: &Live,
    templates: &BTreeMap<Role, String>,
    pods: &[PodView],
    primaries: &[String],
) -> Option<healing::Sick> {
    let settle = match &topology.redis {
        Redis::Sentinel { .. } => renewal::SENTINELS_SETTLE,
        Redis::Cluster { .. } => renewal::SHARDS_SETTLE,
        Redis::Standalone(_) | Redis::External(_) => return None,
    };
    let template = templates.get(&Role::Redis).filter(|_| !topology.on_delete)?;
    let (_, found) = upgrade::workload(live, &topology.object(Role::Redis))?;
    let taken_up = render::template_digest(found) == Some(template.as_str())
        && found["status"]["observedGeneration"].as_i64() >= found["metadata"]["generation"].as_i64();
    taken_up.then(|| renewal::next(pods, topology.desired(Role::Redis), template, primaries, settle)).flatten()
}

/// Has the Sentinels, or the servers of a Redis Cluster, asked from now on, where there are any.
fn follow_redis(context: &Context, key: &ObjectRef<LearningCluster>, topology: &Topology) {
    let hosts = topology.redis_hosts();
    if hosts.is_empty() || topology.suspended {
        context.elections.forget(key);
        return;
    }
    if topology.secrets.fault().is_some() {
        // What runs shows the certificate that it began with.
        return;
    }
    let password = topology.secrets.redis_password.clone().unwrap_or_default();
    let authority = topology.secrets.pems().map(|pems| pems.authority.clone());
    let group = Group { hosts, password, authority };
    let members = match &topology.redis {
        Redis::Cluster { .. } => Members::Cluster(group),
        Redis::Standalone(_) | Redis::Sentinel { .. } | Redis::External(_) => Members::Sentinels(group),
    };
    context.elections.follow(key.clone(), members);
}

/// The number of workers, where the operator decides it or an autoscaler has.
fn decide_workers(
    cluster: &LearningCluster,
    context: &Context,
    key: &ObjectRef<LearningCluster>,
    pods: &[PodView],
    requests: &mut Vec<Request>,
) -> Option<Decision> {
    let scaling = cluster.spec.workers.autoscaling.as_ref()?;
    let former = cluster.status.as_ref().and_then(|status| status.autoscaling.as_ref());
    let current = former.map_or(cluster.spec.workers.replicas, |status| status.desired);
    let workers = pods.iter().filter(|pod| pod.role == Some(Role::Worker));
    let existing = workers.clone().count();
    let settled = usize::try_from(current) == Ok(existing) && workers.clone().all(|pod| pod.ready && !pod.leaving);
    match scaling.strategy {
        ScalingStrategy::None => None,
        ScalingStrategy::Hpa => Some(Decision {
            desired: i32::try_from(existing).unwrap_or(i32::MAX).clamp(scaling.min_replicas, scaling.max_replicas),
            reason: "Hpa",
            message: "a HorizontalPodAutoscaler decides the number of workers".to_owned(),
        }),
        ScalingStrategy::Queue => {
            // A restarted operator decides nothing before somebody could have answered it.
            let within = scaling.min_replicas..=scaling.max_replicas;
            if let Some(former) = former.filter(|former| within.contains(&former.desired))
                && context.coordinators.is_early(key)
                && let Some(reason) = status::REASONS.into_iter().find(|reason| *reason == former.reason)
            {
                let standing = Decision { desired: former.desired, reason, message: former.message.clone() };
                return Some(grant_workers(standing, current, scaling.max_replicas, requests));
            }
            let load = context.coordinators.load(key).unwrap_or_default();
            // A cluster that has never run has nobody to ask, and one at rest keeps its number.
            let runs = cluster.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Initialized"));
            let load = if runs && !cluster.spec.suspend { load } else { Load::default() };
            let decided = scaling::decide(scaling, current, settled, &load);
            Some(grant_workers(decided, current, scaling.max_replicas, requests))
        }
    }
}

/// Raises a decision to what alerts ask for, as far as the bounds allow.
fn grant_workers(mut decision: Decision, current: i32, max: i32, requests: &mut Vec<Request>) -> Decision {
    let asked = requests.extract_if(.., |request| matches!(request.what, Ask::Workers { .. }));
    for request in asked {
        let Ask::Workers { at_least } = request.what else { continue };
        let desired = at_least.min(max);
        if desired > decision.desired {
            let message = format!("an alert asks for {at_least} workers: from {current} to {desired}");
            decision = Decision { desired, reason: "Alert", message };
        }
        // An error says that nobody waits any more.
        let _ = request.answer.send(Ok(format!("{} workers are wanted", decision.desired)));
    }
    decision
}

/// Makes patients of the pods that alerts want replaced, as far as the budget goes. A primary that is to give its role up is
/// one of them: its pod hands the role over before it ends. To ask the Sentinels for a failover would lose what is written
/// until the former primary hears of it.
fn admit(
    requests: Vec<Request>,
    pods: &[PodView],
    primaries: &[String],
    spec: &HealingSpec,
    replacements: &mut Vec<Replacement>,
    now: Timestamp,
) -> Vec<healing::Sick> {
    let mut admitted: Vec<healing::Sick> = Vec::new();
    for request in requests {
        // One pod isn't replaced for two requests, nor charged twice to the budget.
        let is_left = |pod: &&PodView| admitted.iter().all(|sick| sick.uid != pod.uid);
        let pods: Vec<PodView> = pods.iter().filter(is_left).cloned().collect();
        let (chosen, nobody) = match request.what {
            Ask::Restart { role, pods: count } => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                (healing::worst(&pods, role, count), format!("there is no pod of the {} to restart", role.as_str()))
            }
            Ask::Failover => {
                let chosen = healing::primary_to_move(&pods, primaries).into_iter().collect();
                (
                    chosen,
                    "no primary is known that another server of redis.mode Sentinel or Cluster could replace"
                        .to_owned(),
                )
            }
            Ask::Workers { .. } => continue,
        };
        let room = healing::room(spec, replacements);
        let answer = match (chosen.is_empty(), room >= chosen.len()) {
            (true, _) => Err(nobody),
            (_, false) => Err("the budget of spec.healing doesn't allow it".to_owned()),
            (false, true) => {
                let names: Vec<String> = chosen.iter().map(|sick| sick.pod.clone()).collect();
                replacements.extend(chosen.iter().map(|sick| sick.replacement(now)));
                admitted.extend(chosen);
                Ok(format!("restarts {}", names.join(", ")))
            }
        };
        // An error says that nobody waits any more.
        let _ = request.answer.send(answer);
    }
    admitted
}

fn workers_may_shrink(cluster: &LearningCluster, workers: i32) -> bool {
    let scaling = cluster.spec.workers.autoscaling.as_ref();
    scales_by_queue(cluster) && scaling.is_some_and(|scaling| workers > scaling.min_replicas)
}

fn scales_by_queue(cluster: &LearningCluster) -> bool {
    let scaling = cluster.spec.workers.autoscaling.as_ref();
    scaling.is_some_and(|scaling| scaling.strategy == ScalingStrategy::Queue)
}

/// Whether a pod doesn't run the newest template of its role.
fn has_outdated(pods: &[PodView], templates: &BTreeMap<Role, String>) -> bool {
    pods.iter().any(|pod| pod.role.is_some_and(|role| templates.get(&role) != pod.template.as_ref()))
}

/// Ready pods that run the newest template of their role.
fn updated(pods: &[PodView], templates: &BTreeMap<Role, String>) -> i32 {
    let current = |pod: &&PodView| {
        pod.ready && !pod.leaving && pod.role.is_some_and(|role| templates.get(&role) == pod.template.as_ref())
    };
    i32::try_from(pods.iter().filter(current).count()).unwrap_or(i32::MAX)
}

/// Writes what is about to be done; the cluster as it is then.
async fn record_intent(
    cluster: &LearningCluster,
    context: &Context,
    intent: LearningClusterStatus,
) -> Result<LearningCluster, Error> {
    let mut cluster = cluster.clone();
    if cluster.status.as_ref() != Some(&intent) && cluster.status.is_some() {
        write_status(&cluster, context, &intent).await?;
        tell_of_decisions(&cluster, context, &intent).await;
        cluster.status = Some(intent);
    }
    Ok(cluster)
}

/// Writes the status if it says something new, and tells of every transition.
async fn report(
    cluster: &LearningCluster,
    context: &Context,
    status: &LearningClusterStatus,
    done: &[Done],
) -> Result<(), Error> {
    let former = cluster.status.clone().unwrap_or_default();
    tell_of_children(cluster, context, &former, done).await;
    if *status == former {
        return Ok(());
    }
    if write_status(cluster, context, status).await? {
        tell_of_transitions(cluster, context, &former, status).await;
    }
    Ok(())
}

/// Writes a status; whether the object is still there.
async fn write_status(
    cluster: &LearningCluster,
    context: &Context,
    status: &LearningClusterStatus,
) -> Result<bool, Error> {
    let api: Api<LearningCluster> = Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": LearningCluster::api_version(&()),
        "kind": LearningCluster::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER).force();
    let written = api.patch_status(&cluster.name_any(), &parameters, &Patch::Apply(&patch)).await;
    context.metrics.wrote("learningclusters/status", "apply");
    match written {
        Ok(object) => {
            context.written.note(&object.uid().unwrap_or_default(), object.metadata.resource_version.as_deref());
            Ok(true)
        }
        // Deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(false),
        Err(error) => Err(Error::Status(error)),
    }
}

/// Tells why the number of workers changes and what becomes of an upgrade.
async fn tell_of_decisions(cluster: &LearningCluster, context: &Context, intent: &LearningClusterStatus) {
    let former = cluster.status.clone().unwrap_or_default();
    if let Some(decision) = &intent.autoscaling
        && former.autoscaling.as_ref() != Some(decision)
    {
        info!(cluster = %ObjectRef::from_obj(cluster), reason = decision.reason, message = decision.message, "scaling");
        // The decision is the reason: Events of one reason are counted as one, with the first one's words.
        context.tell(cluster, EventType::Normal, &decision.reason, "Scale", decision.message.clone()).await;
    }
    if let Some(request) = intent.request.as_ref().filter(|request| former.request.as_ref() != Some(*request)) {
        let (type_, reason) = match request.granted {
            true => (EventType::Normal, "RequestGranted"),
            false => (EventType::Warning, "RequestRefused"),
        };
        context.tell(cluster, type_, reason, "Heal", format!("{}: {}", request.value, request.message)).await;
    }
    let failed = |status: &LearningClusterStatus| status.upgrade.as_ref().is_some_and(|upgrade| upgrade.failed);
    let revision = |status: &LearningClusterStatus| status.upgrade.as_ref().map(|upgrade| upgrade.revision.clone());
    if failed(intent) && !failed(&former) {
        let note = "the upgrade made no progress within spec.upgrade.progressDeadline: back to the revision before";
        context.tell(cluster, EventType::Warning, "RolledBack", "Upgrade", note.to_owned()).await;
    } else if let Some(revision) = revision(intent).filter(|to| revision(&former).as_ref() != Some(to)) {
        let note = format!("to revision {revision}");
        context.tell(cluster, EventType::Normal, "UpgradeStarted", "Upgrade", note).await;
    }
}

async fn tell_of_children(cluster: &LearningCluster, context: &Context, former: &LearningClusterStatus, done: &[Done]) {
    if done.is_empty() {
        return;
    }
    let list = |because: Option<Because>| {
        let names: Vec<String> = done
            .iter()
            .filter(|done| done.because == because)
            .map(|done| format!("{:?} {}", done.kind, done.name))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    // Some wait for another one, as those with a certificate do.
    let first = !is_true(&former.conditions, "Initialized");
    let told = [
        (Because::Missing, if first { "Created" } else { "Recreated" }),
        (Because::Drifted, "RepairedDrift"),
        (Because::Changed, "Updated"),
    ];
    for (because, reason) in told {
        if let Some(names) = list(Some(because)) {
            info!(cluster = %ObjectRef::from_obj(cluster), reason, names, "wrote children");
            context.tell(cluster, EventType::Normal, reason, "Apply", names).await;
        }
    }
    if let Some(names) = list(None) {
        context.tell(cluster, EventType::Normal, "Deleted", "Delete", names).await;
    }
}

async fn tell_of_transitions(
    cluster: &LearningCluster,
    context: &Context,
    former: &LearningClusterStatus,
    status: &LearningClusterStatus,
) {
    if let Some(leader) = status.leader.as_ref().filter(|leader| former.leader.as_ref() != Some(leader)) {
        let note = format!("{leader} leads the coordinators");
        context.tell(cluster, EventType::Normal, "LeaderElected", "Observe", note).await;
    }
    let redis = |status: &LearningClusterStatus| status.redis.clone().unwrap_or_default();
    if redis(status).last_failover_time != redis(former).last_failover_time {
        let now = redis(status);
        let name = |redis: hebb_api::RedisStatus| match redis.primaries.as_slice() {
            [] => redis.primary.unwrap_or_default(),
            pods => pods.join(", "),
        };
        let note = match now.primaries.as_slice() {
            [] => format!("the Sentinels made {} the primary of Redis, which was {}", name(now), name(redis(former))),
            _ => format!("the primaries of the shards of Redis are {}; they were {}", name(now), name(redis(former))),
        };
        context.tell(cluster, EventType::Warning, "RedisFailover", "Observe", note).await;
    }
    tell_of_backups(cluster, context, former, status).await;
    for condition in &status.conditions {
        let before = former.conditions.iter().find(|old| old.type_ == condition.type_).map(|old| old.status.as_str());
        if before == Some(condition.status.as_str()) {
            continue;
        }
        let (type_, reason) = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "True") => (EventType::Normal, "BecameReady"),
            ("Ready", _) if before == Some("True") => (EventType::Warning, "NotReady"),
            ("Stalled", "True") => (EventType::Warning, "Stalled"),
            ("Suspended", "True") => (EventType::Normal, "Suspended"),
            ("Suspended", "False") if before == Some("True") => (EventType::Normal, "Resumed"),
            _ => continue,
        };
        context.tell(cluster, type_, reason, "Observe", condition.message.clone()).await;
    }
    let desired = |status: &LearningClusterStatus| status.workers.as_ref().map(|workers| workers.desired);
    if let (Some(from), Some(to)) = (desired(former), desired(status))
        && from != to
    {
        context
            .tell(cluster, EventType::Normal, "ScaledWorkers", "Scale", format!("from {from} to {to} workers"))
            .await;
    }
}

async fn tell_of_backups(
    cluster: &LearningCluster,
    context: &Context,
    former: &LearningClusterStatus,
    status: &LearningClusterStatus,
) {
    let (before, now) = (former.backup.clone().unwrap_or_default(), status.backup.clone().unwrap_or_default());
    if let Some(backup) = now.last_backup.filter(|backup| before.last_backup.as_ref() != Some(backup)) {
        let note = format!("{}: {} events, {} bytes", backup.name, backup.events, backup.bytes);
        context.tell(cluster, EventType::Normal, "BackedUp", "Backup", note).await;
    }
    if let Some(failure) = now.last_failure.filter(|failure| before.last_failure.as_ref() != Some(failure)) {
        let note = format!("Job {}: {}", failure.job, failure.message);
        context.tell(cluster, EventType::Warning, "BackupFailed", "Backup", note).await;
    }
    if let (None, Some(restored)) = (&former.restored, &status.restored) {
        let note = format!("{}; the nodes start now", restored.backup);
        context.tell(cluster, EventType::Normal, "Restored", "Restore", note).await;
    }
}

/// An error with everything that caused it.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    // Of what the API server says, its message is for people.
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return status.message.clone();
    }
    let causes = error.source().map(|cause| format!(": {}", with_causes(cause)));
    format!("{error}{}", causes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(number: i32) -> PodView {
        let pod: Pod = serde_json::from_value(json!({"metadata": {
            "name": format!("demo-redis-{number}"), "uid": format!("u{number}"),
            "labels": {"app.kubernetes.io/component": "redis"},
        }}))
        .unwrap();
        PodView::new(&pod, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_failover_restarts_the_primary_as_long_as_the_budget_lasts() {
        let pods = [redis(0), redis(1), redis(2)];
        let primary = ["demo-redis-1".to_owned()];
        let spec = HealingSpec { max_replacements: 1, ..HealingSpec::default() };
        let mut replacements = Vec::new();
        let mut ask = |primaries: &[String]| {
            let (answer, mut answered) = oneshot::channel();
            let request = Request { what: Ask::Failover, answer };
            let admitted = admit(vec![request], &pods, primaries, &spec, &mut replacements, Timestamp::UNIX_EPOCH);
            (admitted, answered.try_recv().unwrap())
        };
        let (admitted, answer) = ask(&[]);
        assert!(admitted.is_empty() && answer.unwrap_err().contains("no primary is known"));
        let (admitted, answer) = ask(&primary);
        assert_eq!((admitted[0].uid.as_str(), answer.as_deref()), ("u1", Ok("restarts demo-redis-1")));
        let (admitted, answer) = ask(&primary);
        assert!(admitted.is_empty() && answer.unwrap_err().contains("budget"));
    }

    #[test]
    fn requests_of_one_pass_restart_different_pods() {
        let pods = [redis(0), redis(1)];
        let spec = HealingSpec { max_replacements: 3, ..HealingSpec::default() };
        let (requests, mut answers): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (answer, answered) = oneshot::channel();
                (Request { what: Ask::Restart { role: Role::Redis, pods: 1 }, answer }, answered)
            })
            .unzip();
        let mut replacements = Vec::new();
        let admitted = admit(requests, &pods, &[], &spec, &mut replacements, Timestamp::UNIX_EPOCH);
        let uids: Vec<&str> = admitted.iter().map(|sick| sick.uid.as_str()).collect();
        assert_eq!((uids, replacements.len()), (vec!["u0", "u1"], 2));
        let answers: Vec<_> = answers.iter_mut().map(|answered| answered.try_recv().unwrap()).collect();
        assert_eq!(answers[1].as_deref(), Ok("restarts demo-redis-1"));
        assert!(answers[2].as_ref().unwrap_err().contains("no pod of the redis"), "{answers:?}");
    }
}
