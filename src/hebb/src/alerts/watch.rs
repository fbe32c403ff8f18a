//! AlertPolicies of one process: the rules, routes, receivers and guards of the operator, over what the process says of
//! itself. What there are no pods for can't be acted on; that is said where it is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_alert::notify::{self, Edges};
use hebb_alert::{Came, Delivery, Notice, Observation, Policy, Record, RecordError, Run, Target, evaluate};
use hebb_api::growth::Growth;
use hebb_api::{
    ACCURACY_LABELS_MIN, ActionType, AlertPolicy, Component, EngineSpec, LearningCluster, acceptance_shortfall,
};
use hebb_node::coordinator::{AlertNotice, ClusterStatus, DomainStatus, PartitionView, PolicyReport};
use jiff::Timestamp;
use kube::ResourceExt;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::Surroundings;
use crate::config::{self, UnusablePolicy};

/// The folder, within that of the data, of what policies remember.
const FOLDER: &str = "alerts";
/// The folder within it that `file` receivers write to.
const MESSAGES: &str = "messages";
/// How often the process is asked how it is; a policy is evaluated no more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const DEADLINE: Duration = Duration::from_millis(900);
/// The span over which rates are taken.
const RATE_OVER: Duration = Duration::from_secs(60);
/// How long a webhook of an action may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Why policies can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Policy(#[from] UnusablePolicy),
    #[error("the receivers can't be reached: {0}")]
    Edges(String),
    #[error("can't use {path}")]
    File { path: String, source: std::io::Error },
    #[error("{path} holds what this version can't read; move it away to begin anew")]
    Record { path: String, source: RecordError },
    #[error("the internal token has characters that no header can have")]
    Token,
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

/// The policies of one process.
pub struct Watch {
    followed: Vec<Followed>,
    cluster: String,
    engine: EngineSpec,
    status_url: String,
    health_url: String,
    workers_url: String,
    http: reqwest::Client,
    reach: Arc<Reach>,
}

/// What sends and runs need.
struct Reach {
    edges: Edges,
    surroundings: Surroundings,
    meta_url: String,
    alerts_url: String,
    http: reqwest::Client,
}

impl Reach {
    /// Has the dashboard show what a policy says. It says so again with the next evaluation.
    async fn show(&self, report: PolicyReport) {
        let told = self.http.put(&self.alerts_url).json(&report).send().await;
        if let Err(error) = told.and_then(reqwest::Response::error_for_status) {
            debug!(policy = report.policy, %error, "the dashboard doesn't know of the alerts");
        }
    }

    /// Has meta-learning do something.
    async fn meta(&self, what: &str) -> Result<(), String> {
        let asked = self.http.post(format!("{}/{what}", self.meta_url)).timeout(CALL_DEADLINE).send().await;
        asked.and_then(reqwest::Response::error_for_status).map(drop).map_err(|error| error.to_string())
    }
}

struct Followed {
    policy: Policy,
    name: String,
    file: PathBuf,
    record: Record,
    stored: String,
    history: hebb_alert::History,
    due_at: Instant,
    results: mpsc::UnboundedReceiver<Came>,
    tell: mpsc::UnboundedSender<Came>,
}

/// What the process says of itself.
#[derive(Default)]
struct Looks {
    growth: Growth,
    /// How often the models had learned since the first look, over the last minute.
    learned: VecDeque<(Instant, u64)>,
}

impl Watch {
    /// The policies that are about this cluster, with what they remember below the folder of the `data`. The process asks for the `token`, where
    /// there is one.
    ///
    /// # Errors
    /// [`WatchError`] for a policy that can't be used, and for a folder or record that can't be read.
    pub fn new(
        policies: &[AlertPolicy],
        cluster: &LearningCluster,
        addresses: &hebb_node::EmbeddedAddresses,
        token: Option<&str>,
        data: &Path,
        surroundings: Surroundings,
    ) -> Result<Self, WatchError> {
        let folder = data.join(FOLDER);
        let messages = messages_folder(data)?;
        let mut followed = Vec::new();
        for policy in policies {
            let ready = config::compile(policy)?;
            if !is_about(policy, cluster) {
                warn!(policy = policy.name_any(), cluster = cluster.name_any(), "is about another LearningCluster");
                continue;
            }
            followed.push(Followed::load(ready, policy.name_any(), &folder)?);
        }
        let edges = surroundings.edges(Some(messages)).map_err(|error| WatchError::Edges(error.to_string()))?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| WatchError::Token)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().default_headers(headers).build()?;
        Ok(Self {
            followed,
            cluster: cluster.name_any(),
            engine: cluster.spec.engine.clone(),
            status_url: format!("http://{}/api/v1/status", addresses.coordinator),
            health_url: format!("http://{}/health/readiness", addresses.gateway),
            workers_url: format!("http://{}/health/readiness", addresses.worker),
            http: http.clone(),
            reach: Arc::new(Reach {
                edges,
                surroundings,
                meta_url: format!("http://{}/api/v4/meta-learning", addresses.meta),
                alerts_url: format!("http://{}/api/v1/alerts", addresses.coordinator),
                http,
            }),
        })
    }

    /// Evaluates them until it is dropped: what was decided by then is recorded, and goes on with the next start. It begins once
    /// the coordinator has led: before, that nobody leads is no news.
    pub async fn run(mut self) {
        if self.followed.is_empty() {
            return;
        }
        let mut looks = Looks::default();
        let mut beat = tokio::time::interval(LOOK_EVERY);
        let mut has_led = false;
        loop {
            beat.tick().await;
            let samples = self.look(&mut looks).await;
            if !has_led {
                has_led = samples.get("leader_up").is_some_and(|up| *up > 0.0);
                if !has_led {
                    continue;
                }
                info!(policies = self.followed.len(), "watching for alerts");
            }
            for followed in &mut self.followed {
                if let Err(problem) = followed.pass(&self.cluster, &samples, &self.reach) {
                    error!(policy = followed.name, error = %problem, "an alert can't be recorded; nothing is told or done");
                }
            }
        }
    }

    async fn look(&self, looks: &mut Looks) -> BTreeMap<String, f64> {
        let is_ready =
            async |url: &str| self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
        let (ready, workers_ready) = tokio::join!(is_ready(&self.health_url), is_ready(&self.workers_url));
        let mut samples = BTreeMap::from([("up".to_owned(), f64::from(u8::from(ready)))]);
        let asked = async { self.http.get(&self.status_url).send().await?.error_for_status()?.json().await };
        let status: Result<ClusterStatus, reqwest::Error> = asked.await;
        match status {
            Ok(status) => {
                looks.take(&status, &self.engine, &mut samples);
                // The workers of a process are ready together: one that can't serve a partition says so for all.
                if !workers_ready {
                    samples.insert("workers_ready_ratio".to_owned(), 0.0);
                }
            }
            Err(_) => {
                samples.insert("leader_up".to_owned(), 0.0);
            }
        }
        samples
    }
}

impl Looks {
    fn take(&mut self, status: &ClusterStatus, engine: &EngineSpec, samples: &mut BTreeMap<String, f64>) {
        let mut add = |name: &str, value: Option<f64>| {
            if let Some(value) = value {
                samples.insert(name.to_owned(), value);
            }
        };
        add("leader_up", Some(f64::from(u8::from(!status.leader.is_empty()))));
        add("workers_ready_ratio", Some(if status.workers.is_empty() { 0.0 } else { 1.0 }));
        let partitions = status.domains.iter().flat_map(|domain| &domain.partitions);
        let waiting = partitions.map(|partition| partition.lag).max().map(|lag| lag as f64);
        add("queue_size", waiting);
        add("queue_usage_ratio", waiting.map(|waiting| waiting / f64::from(engine.max_queue_size)));
        let told = status.domains.iter().filter(|domain| domain.labels >= ACCURACY_LABELS_MIN);
        add("accuracy", told.filter_map(|domain| domain.recent_accuracy).min_by(f64::total_cmp));
        let greatest =
            |of: fn(&DomainStatus) -> Option<f64>| status.domains.iter().filter_map(of).max_by(f64::total_cmp);
        add("knn_failure_rate", greatest(|domain| domain.knn_failure_rate));
        add("mean_kl_divergence", greatest(|domain| domain.kl_divergence));
        let rejections = greatest(|domain| domain.rejection_rate);
        add("rejection_rate", rejections);
        let target = engine.admission.target_acceptance;
        add("acceptance_shortfall", rejections.map(|rate| acceptance_shortfall(rate, target)));
        add("inference_latency_p99", status.answer_p99_seconds);
        add("latency_p95", status.apply_p95_seconds);
        add("memory_bytes", Some(status.memory_bytes as f64));
        add("memory_usage_ratio", status.memory_ratio);
        for (name, value) in &status.meta {
            add(name, Some(*value));
        }
        let learned = status.domains.iter().flat_map(|domain| {
            let known = |view: &PartitionView| Some(((domain.name.clone(), view.index), view.learned?));
            domain.partitions.iter().filter_map(known).collect::<Vec<_>>()
        });
        let learned = self.growth.look(learned);
        add("update_rate", self.update_rate(learned));
    }

    /// How often the models learn in a minute; nothing before a minute is known.
    fn update_rate(&mut self, learned: u64) -> Option<f64> {
        let now = Instant::now();
        self.learned.push_back((now, learned));
        while self.learned.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.learned.pop_front();
        }
        let (at, before) = self.learned.front()?;
        let span = now.duration_since(*at);
        (span >= RATE_OVER).then(|| learned.saturating_sub(*before) as f64 * 60.0 / span.as_secs_f64())
    }
}

impl Followed {
    fn load(policy: Policy, name: String, folder: &Path) -> Result<Self, WatchError> {
        let file = folder.join(format!("{name}.json"));
        let path = || file.display().to_string();
        let stored = match fs::read_to_string(&file) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(WatchError::File { path: path(), source }),
        };
        let record = match stored.as_str() {
            "" => Record::default(),
            json => Record::from_json(json).map_err(|source| WatchError::Record { path: path(), source })?,
        };
        let history = policy.history();
        let (tell, results) = mpsc::unbounded_channel();
        Ok(Self { policy, name, file, record, stored, history, due_at: Instant::now(), results, tell })
    }

    /// Evaluates where that is due; what was decided is stored before it is told or done.
    fn pass(&mut self, cluster: &str, samples: &BTreeMap<String, f64>, reach: &Arc<Reach>) -> Result<(), WatchError> {
        let now = Timestamp::now();
        let mut heard = false;
        while let Ok(came) = self.results.try_recv() {
            self.record.note(came, now);
            heard = true;
        }
        if !heard && Instant::now() < self.due_at {
            return Ok(());
        }
        let one = [Component::Gateway, Component::Coordinator, Component::Worker].map(|component| (component, 1));
        let target = Target {
            samples: samples.clone(),
            phases: BTreeSet::new(),
            replicas: BTreeMap::from(one),
            approved: BTreeSet::new(),
        };
        let seen = Observation { now, targets: BTreeMap::from([(cluster.to_owned(), target)]) };
        let decision = evaluate(&self.policy, &mut self.history, self.record.clone(), &seen);
        self.store(&decision.record)?;
        self.record = decision.record;
        let interval = self.policy.spec().interval.0;
        self.due_at = Instant::now() + self.record.next_due(now).map_or(interval, |due| due.min(interval));
        for note in decision.notes {
            match note.warning {
                true => warn!(policy = self.name, reason = note.reason, target = note.target, "{}", note.text),
                false => info!(policy = self.name, reason = note.reason, target = note.target, "{}", note.text),
            }
        }
        let notices = decision.notices.into_iter().map(|notice| {
            let Notice { fingerprint, summary, value, runbook_url, .. } = notice;
            (fingerprint, AlertNotice { summary, value, runbook_url })
        });
        let notices = notices.collect();
        let (reach_of_page, report) =
            (reach.clone(), PolicyReport { policy: self.name.clone(), status: decision.status, notices });
        tokio::spawn(async move { reach_of_page.show(report).await });
        for delivery in decision.sends {
            self.send(delivery, reach);
        }
        for run in decision.runs {
            self.act(run, reach);
        }
        Ok(())
    }

    fn store(&mut self, record: &Record) -> Result<(), WatchError> {
        let path = || self.file.display().to_string();
        let json = record.to_json().map_err(|source| WatchError::Record { path: path(), source })?;
        if json == self.stored {
            return Ok(());
        }
        write(&self.file, json.as_bytes()).map_err(|source| WatchError::File { path: path(), source })?;
        self.stored = json;
        Ok(())
    }

    fn send(&self, delivery: Delivery, reach: &Arc<Reach>) {
        let spec = self.policy.spec();
        let Some(receiver) = spec.receivers.iter().find(|receiver| receiver.name == delivery.receiver).cloned() else {
            return;
        };
        let (tell, reach, policy) = (self.tell.clone(), reach.clone(), self.name.clone());
        tokio::spawn(async move {
            let secrets = reach.surroundings.secrets(&receiver.secrets());
            let sent = notify::send(&receiver, &delivery.message, &secrets, &reach.edges, delivery.deadline).await;
            match &sent {
                Ok(delivered) => {
                    info!(policy, receiver = receiver.name, key = delivery.key, "told");
                    for event in &delivered.events {
                        info!(policy, target = event.target, reason = event.reason, "{}", event.note);
                    }
                }
                Err(error) => warn!(policy, receiver = receiver.name, error = error.reason, "not told"),
            }
            // An error says that the process is ending.
            let _ = tell.send(Came::Sent { key: delivery.key, outcome: sent.map(drop) });
        });
    }

    fn act(&self, run: Run, reach: &Arc<Reach>) {
        let (tell, reach, policy) = (self.tell.clone(), reach.clone(), self.name.clone());
        let id = self.policy.id();
        tokio::spawn(async move {
            let outcome = match (run.spec.type_, &run.spec.webhook) {
                (ActionType::Webhook, Some(webhook)) => {
                    let secrets = reach.surroundings.secrets(&webhook.secrets());
                    let called = notify::call(webhook, &run, &id, &secrets, &reach.edges, CALL_DEADLINE).await;
                    called.map_err(|error| error.reason)
                }
                (ActionType::BoostExploration, _) => reach.meta("boost").await,
                (ActionType::ResetMetaLearning, _) => reach.meta("reset").await,
                (type_, _) => Err(format!("{} needs pods; one process has none", type_.as_str())),
            };
            match &outcome {
                Ok(()) => info!(policy, action = run.spec.name, rule = run.rule, "acted"),
                Err(why) => warn!(policy, action = run.spec.name, rule = run.rule, why, "could not act"),
            }
            // An error says that the process is ending.
            let _ = tell.send(Came::Ran { run: run.id, outcome });
        });
    }
}

fn is_about(policy: &AlertPolicy, cluster: &LearningCluster) -> bool {
    match (&policy.spec.target_ref, &policy.spec.target_selector) {
        (Some(target), _) => target.name == cluster.name_any(),
        (None, Some(selector)) => {
            selector.match_labels.iter().all(|(name, value)| cluster.labels().get(name) == Some(value))
        }
        (None, None) => false,
    }
}

/// The folder that `file` receivers write to; it, and those above it that are missing, are made for this user alone.
///
/// # Errors
/// [`WatchError::File`].
pub fn messages_folder(data: &Path) -> Result<PathBuf, WatchError> {
    let folder = data.join(FOLDER).join(MESSAGES);
    match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(WatchError::File { path: folder.display().to_string(), source }),
    }
}

/// Writes a file, for this user alone, so that it is there wholly or as before, whatever happens.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(&beside, file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn domain(labels: u64, learned: u64, recent_accuracy: Option<f64>, rejection_rate: Option<f64>) -> Value {
        json!({
            "name": "d", "task": "Classification", "events": labels, "labels": labels, "learned": learned, "accuracy": 0.0,
            "recent_accuracy": recent_accuracy, "rejection_rate": rejection_rate, "drifts": 0, "lag": 50,
            "partitions": [{"index": 0, "owner": null, "epoch": 1, "lag": 40, "state_bytes": 0, "learned": learned}],
        })
    }

    #[test]
    fn the_indicators_are_those_of_what_was_learned_and_of_what_the_spec_says() {
        let status = |learned: u64| -> ClusterStatus {
            let mut domains = [
                domain(5_000, 0, Some(0.9), None),
                domain(99, 30 + learned, Some(0.0), None),
                domain(0, 90, None, Some(0.8)),
            ];
            for (domain, name) in domains.iter_mut().zip(["a", "b", "c"]) {
                domain["name"] = json!(name);
            }
            let status = json!({
                "leader": "c", "term": 1, "workers": [], "lag": 0, "unowned": 0, "domains": domains,
            });
            serde_json::from_value(status).unwrap()
        };
        let mut engine = EngineSpec { max_queue_size: 80, ..EngineSpec::default() };
        engine.admission.target_acceptance = 0.4;
        let learned = VecDeque::from([(Instant::now() - RATE_OVER, 0)]);
        let mut looks = Looks { learned, ..Looks::default() };
        let mut samples = BTreeMap::new();
        looks.take(&status(0), &engine, &mut samples);
        assert!(samples["update_rate"].abs() < 1e-9, "what was learned before is not new");
        looks.take(&status(100), &engine, &mut samples);
        assert_eq!(samples["accuracy"], 0.9, "99 labels say nothing");
        assert_eq!((samples["queue_size"], samples["queue_usage_ratio"]), (40.0, 0.5));
        assert!((samples["acceptance_shortfall"] - 0.5).abs() < 1e-9);
        assert!((samples["update_rate"] - 100.0).abs() < 1.0, "and not what was labelled: {}", samples["update_rate"]);
    }
}
