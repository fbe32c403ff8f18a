//! The gateway: the HTTP API. It parses and bounds, appends to the log, and answers with what the owner says.

mod admission;
mod bodies;
mod calls;
mod consistency;
mod detailed;
mod dispatch;
mod domains;
mod follower;
mod governed;
mod http;
mod keys;
mod library;
mod limits;
mod ndjson;
mod priority;
mod reply;
mod reset;
mod statistics;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hebb_engine::Hyperparameters;
use hebb_log::{LogError, Member};
use hebb_telemetry::metrics;
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use tracing::debug;

use self::admission::Admission;
use self::bodies::Bodies;
pub use self::calls::{CallError, Observation};
use self::detailed::ProcessMetrics;
use self::dispatch::Dispatcher;
use self::domains::Domains;
pub use self::domains::is_domain_name;
use self::follower::Followers;
use self::governed::GovernedMetrics;
pub use self::keys::{KeyError, KeyLine, KeyOwner, KeyRing};
pub use self::library::LibraryPattern;
pub use self::limits::Limits;
use self::priority::QueueMetrics;
pub use self::reply::{Address, ErrorBody, Failure, bearer_matches, expose, families, unknown_address, wrong_method};
pub(crate) use self::wire::from_object;
use crate::health::Health;
use crate::memory::Memory;
use crate::patience::Shortage;
use crate::report::{GatewayReport, Report, started_at};
use crate::stop::Stop;
use crate::store::Store;
use crate::task::Lasting;
use crate::window::Window;

/// How often the directory is read anew: a new domain is found at once all the same, on its first event.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// What a gateway said of itself last is forgotten after five beats.
const BEAT_TTL: Duration = Duration::from_secs(5);

/// What a gateway is told.
pub struct GatewayOptions {
    /// Its id, unique among the gateways that live.
    pub id: String,
    /// Most entries of a partition that may wait.
    pub max_queue_size: u64,
    /// Whether an unknown domain is made on its first event.
    pub allow_undeclared_domains: bool,
    /// What undeclared domains start from.
    pub hyperparameters: Hyperparameters,
    /// Whom it serves; whoever comes where there are none.
    pub keys: Option<KeyRing>,
    /// How much a client may ask for; as much as it likes where there are none.
    pub limits: Option<Limits>,
    /// How old the answer of a copy may be. None: there are no copies, and owners answer every read.
    pub sync_interval: Option<Duration>,
}

/// A gateway and its HTTP routes.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    id: String,
    store: Store,
    admission: Admission,
    bodies: Bodies,
    dispatcher: Dispatcher,
    domains: Domains,
    followers: Followers,
    health: Health,
    metrics: GatewayMetrics,
    last_look: detailed::Last,
    lasting: Lasting,
}

/// A gateway with so much of its memory taken gets no new work before it is killed for it. Being busy is no such reason: what
/// it is taken out of the Service for would fall on the others.
const MEMORY_MAX: f64 = 0.95;

struct GatewayMetrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: Histogram,
    /// The same of the last minute, and its mean as of the last look.
    recent: Window,
    mean_latency: Gauge,
    /// Requests answered, and of them those that weren't answered as they wished.
    answered: AtomicU64,
    failed: AtomicU64,
    governed: GovernedMetrics,
    process: ProcessMetrics,
}

impl GatewayMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("hebb_requests_total", "Answered requests and lines of streams, by operation and outcome"),
            &["operation", "outcome"],
        )?;
        let latency = Histogram::with_opts(
            HistogramOpts::new("process_event_latency_seconds", "From the request to the answer, in seconds")
                .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0]),
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        let help = "Mean time from a request to its answer over the last minute, in milliseconds";
        let mean_latency = Gauge::new("avg_latency_ms", help)?;
        registry.register(Box::new(mean_latency.clone()))?;
        let governed = GovernedMetrics::new(&registry)?;
        let process = ProcessMetrics::new(&registry)?;
        let (answered, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let recent = Window::default();
        Ok(Self { registry, requests, latency, recent, mean_latency, answered, failed, governed, process })
    }

    fn answered(&self, operation: &str, ok: bool, seconds: f64) {
        self.requests.with_label_values(&[operation, if ok { "ok" } else { "error" }]).inc();
        self.latency.observe(seconds);
        self.recent.observe(seconds, 1);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(!ok), Ordering::Relaxed);
    }
}

impl Shared {
    /// What `/metrics` shows.
    fn families(&self) -> Result<Vec<MetricFamily>, prometheus::Error> {
        self.metrics.process.look();
        self.metrics.mean_latency.set(self.metrics.recent.mean().unwrap_or(0.0) * 1e3);
        self.followers.measure();
        families(&self.metrics.registry)
    }
}

impl Gateway {
    /// A gateway that waits to be run.
    ///
    /// # Errors
    /// A metric that can't be registered.
    pub fn new(store: Store, options: GatewayOptions) -> Result<Self, prometheus::Error> {
        let health = Health::default();
        health.expect("directory");
        health.expect("replies");
        let domains = Domains::new(store.clone(), options.allow_undeclared_domains, options.hyperparameters);
        let metrics = GatewayMetrics::new()?;
        let queue = QueueMetrics::new(&metrics.registry)?;
        let dispatcher = Dispatcher::new(store.clone(), options.id.clone(), options.max_queue_size, queue);
        let admission = Admission::new(options.keys, options.limits, &metrics.registry)?;
        let followers = Followers::new(store.log.clone(), options.sync_interval, &metrics.registry)?;
        let (id, bodies) = (options.id, Bodies::default());
        let (last_look, lasting) = (detailed::Last::default(), Lasting::default());
        let shared = Shared {
            id,
            store,
            admission,
            bodies,
            dispatcher,
            domains,
            followers,
            health,
            metrics,
            last_look,
            lasting,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The API, health and metrics.
    pub fn router(&self) -> Router {
        let shared = Arc::downgrade(&self.0);
        metrics::offer("gateway", move || {
            shared.upgrade().and_then(|shared| shared.families().ok()).unwrap_or_default()
        });
        http::router(self.0.clone()).merge(self.0.health.router())
    }

    /// Whether streams wait for room that others keep.
    pub fn shortage(&self) -> Shortage {
        self.0.bodies.shortage()
    }

    /// Receives replies and follows the directory and the keys until the stop; then waits for what goes on without its client.
    pub async fn run(&self, stop: Stop) {
        let receive = self.0.dispatcher.receive(self.0.health.clone(), stop.clone());
        tokio::join!(receive, self.0.admission.follow(stop.clone()), self.follow(stop.clone()));
        self.0.lasting.ended().await;
        self.0.dispatcher.close().await;
    }

    async fn follow(&self, mut stop: Stop) {
        while !stop.is_asked() {
            let memory = Memory::now();
            match futures::try_join!(self.0.domains.refresh(), self.beat(memory)) {
                Ok(((), ())) => self.0.health.works("directory"),
                Err(error) => self.0.health.fails("directory", error.to_string()),
            }
            match memory.ratio().filter(|ratio| *ratio >= MEMORY_MAX) {
                Some(ratio) => self.0.health.fails("memory", format!("{:.0} % of the limit", ratio * 100.0)),
                None => self.0.health.works("memory"),
            }
            tokio::select! {
                () = stop.asked() => {}
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
        }
        if let Err(error) = self.0.store.directory.leave(&self.0.id).await {
            debug!(%error, "could not sign off; the heartbeat expires by itself");
        }
    }

    /// Tells the coordinators how this gateway is. They give it nothing to do.
    async fn beat(&self, memory: Memory) -> Result<(), LogError> {
        let report = Report::Gateway(GatewayReport {
            memory,
            answer_p99_seconds: self.0.metrics.recent.quantile(0.99),
            answered: self.0.metrics.answered.load(Ordering::Relaxed),
            failed: self.0.metrics.failed.load(Ordering::Relaxed),
            started_at: started_at(),
        });
        let report = serde_json::to_string(&report).unwrap_or_default();
        self.0.store.directory.beat(&Member { id: self.0.id.clone(), report }, BEAT_TTL).await
    }
}
