//! The coordinator: one leads, by a lease in the store with a fencing number; the others forward to it.
//!
//! The leader makes the declared domains known, gives each partition to a worker that lives, and tells who asks how the
//! cluster is. It holds no state that the store doesn't: a new leader goes on at once.

mod api;
mod ask;
mod assign;
mod board;
mod leader;
mod meta;
mod status;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::middleware;
use futures::TryFutureExt;
use hebb_log::{Assignment, Domain, Leadership, LogError, Member, PartitionKey};
use hebb_telemetry::metrics;
use tracing::{debug, info, warn};

use self::board::Board;
pub use self::board::{AlertNotice, DomainDetail, Node, Overview, PolicyReport, Role};
pub use self::status::{ClusterStatus, DomainStatus, PartitionView, WorkerStatus, foremost};
use crate::browser;
use crate::gateway::{unknown_address, wrong_method};
use crate::health::Health;
use crate::memory::Memory;
use crate::report::{GatewayReport, PartitionReport, Report, WorkerReport};
use crate::settings::MetaLearning;
use crate::stop::Stop;
use crate::store::Store;

/// How long a leadership lasts unless it is prolonged.
const LEASE: Duration = Duration::from_secs(3);
/// One pass of a coordinator. Ten fit in a lease.
const PASS_EVERY: Duration = Duration::from_millis(300);

/// What a coordinator is told.
pub struct CoordinatorOptions {
    /// Its id, unique among the coordinators.
    pub id: String,
    /// Where its API is reached by the others, `host:port`.
    pub address: String,
    /// The domains that the cluster declares.
    pub domains: Vec<Domain>,
    /// What a caller of the status API must present, if anything.
    pub token: Option<String>,
    /// Whether and how often the cycles of meta-learning run.
    pub meta: MetaLearning,
    /// Most entries of a partition that may wait: metrics tell how much of it is used.
    pub max_queue_size: u64,
    /// The share of the vectors that governed memories should accept, 0 to 1: metrics tell what is missing.
    pub target_acceptance: f64,
}

/// What the passes leave for the API.
#[derive(Default)]
struct View {
    leadership: Option<Leadership>,
    leads: bool,
    status: Option<ClusterStatus>,
}

struct Shared {
    store: Store,
    options: CoordinatorOptions,
    health: Health,
    view: Mutex<View>,
    /// The newest reports of the partitions, while this coordinator leads.
    held: Mutex<Vec<PartitionReport>>,
    board: Board,
    client: reqwest::Client,
    meta: meta::Meta,
}

/// A coordinator and its HTTP routes.
#[derive(Clone)]
pub struct Coordinator(Arc<Shared>);

impl Coordinator {
    /// A coordinator that waits to be run.
    ///
    /// # Errors
    /// An HTTP client that can't be made.
    pub fn new(store: Store, options: CoordinatorOptions) -> Result<Self, reqwest::Error> {
        let health = Health::default();
        health.expect("leadership");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
        Ok(Self(Arc::new(Shared {
            store,
            options,
            health,
            view: Mutex::default(),
            held: Mutex::default(),
            board: Board::default(),
            client,
            meta: meta::Meta::default(),
        })))
    }

    /// The status API, the dashboard, health and metrics.
    pub fn router(&self) -> Router {
        let shared = Arc::downgrade(&self.0);
        metrics::offer("coordinator", move || {
            shared.upgrade().and_then(|shared| api::measured(&shared).ok()).unwrap_or_default()
        });
        let router = api::router(self.0.clone()).merge(board::router(self.0.clone())).merge(self.0.health.router());
        let router = router.fallback(unknown_address).method_not_allowed_fallback(wrong_method);
        router.layer(middleware::from_fn(browser::refuse_foreign))
    }

    /// The API of meta-learning on a port of its own.
    pub fn meta_router(&self) -> Router {
        meta::port_router(self.0.clone()).layer(middleware::from_fn(browser::refuse_foreign))
    }

    /// Coordinates until the stop; then gives the leadership up.
    pub async fn run(&self, stop: Stop) {
        tokio::join!(self.lead(stop.clone()), board::keep(&self.0, stop.clone()), meta::drive(&self.0, stop));
    }

    async fn lead(&self, stop: Stop) {
        let shared = &self.0;
        let mut declared_in_term = None;
        let mut begun = false;
        while !stop.is_asked() {
            match begin(shared, &mut begun).and_then(|()| pass(shared, &mut declared_in_term)).await {
                Ok(()) => shared.health.works("leadership"),
                Err(error) => {
                    shared.health.fails("leadership", error.to_string());
                    // Without the store nobody knows who leads.
                    *shared.view.lock().unwrap_or_else(PoisonError::into_inner) = View::default();
                    shared.board.pause();
                }
            }
            let mut stop = stop.clone();
            tokio::select! {
                () = stop.asked() => {}
                () = tokio::time::sleep(PASS_EVERY) => {}
            }
        }
        shared.board.close();
        if let Err(error) = shared.store.directory.resign(&shared.options.id).await {
            warn!(%error, "could not resign; the leadership expires by itself");
        }
    }
}

/// Gives up what an earlier life of this coordinator may have left: a process that was killed and is back within its lease
/// leads in a new term, not in that of the dead one.
async fn begin(shared: &Shared, begun: &mut bool) -> Result<(), LogError> {
    if !*begun {
        shared.store.directory.resign(&shared.options.id).await?;
        *begun = true;
    }
    Ok(())
}

async fn pass(shared: &Shared, declared_in_term: &mut Option<u64>) -> Result<(), LogError> {
    let directory = &shared.store.directory;
    let leadership = directory.campaign(&shared.options.id, &shared.options.address, LEASE).await?;
    let leads = leadership.leader == shared.options.id;
    if leads && *declared_in_term != Some(leadership.term) {
        info!(term = leadership.term, "leading");
        match declare(shared).await {
            Ok(()) => *declared_in_term = Some(leadership.term),
            // A store that is full takes no further domain, and has room again only if those that it has find owners.
            Err(LogError::Unavailable(error)) => warn!(error, "domains can't be declared at the moment"),
            Err(error) => return Err(error),
        }
    }
    let status = if leads { Some(lead(shared, &leadership).await?) } else { None };
    if !leads {
        shared.board.pause();
        shared.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    *shared.view.lock().unwrap_or_else(PoisonError::into_inner) = View { leadership: Some(leadership), leads, status };
    Ok(())
}

/// Makes the declared domains known and brings changed hyperparameters to known ones.
async fn declare(shared: &Shared) -> Result<(), LogError> {
    let directory = &shared.store.directory;
    for domain in &shared.options.domains {
        let known = directory.declare(domain).await?;
        if known.config.task != domain.config.task || known.partitions != domain.partitions {
            warn!(domain = domain.name, "task and partitions of a known domain stay as they were");
        }
        let wanted = hebb_engine::PartitionConfig { task: known.config.task, ..domain.config.clone() };
        if known.config != wanted {
            directory.configure(&Domain { config: wanted, ..known }).await?;
        }
    }
    Ok(())
}

/// Assigns what must be assigned and takes stock.
async fn lead(shared: &Shared, leadership: &Leadership) -> Result<ClusterStatus, LogError> {
    let directory = &shared.store.directory;
    let (members, domains, known) =
        futures::try_join!(directory.members(), directory.domains(), directory.assignment())?;
    let (workers, gateways) = sort(members);
    let staying: Vec<String> =
        workers.iter().filter(|(_, report)| !report.draining).map(|(id, _)| id.clone()).collect();
    let partitions: Vec<PartitionKey> = domains.iter().flat_map(Domain::keys).collect();
    let owners = assign::assign(&partitions, &staying);
    // With nobody there the old assignment stands: whoever comes back finds its partitions.
    if !staying.is_empty() && owners != known.owners {
        let assignment = Assignment { version: known.version + 1, owners };
        directory.assign(leadership.term, &assignment).await?;
        info!(version = assignment.version, workers = staying.len(), partitions = partitions.len(), "new assignment");
    }
    let views = futures::future::try_join_all(partitions.iter().map(|key| shared.store.log.status(key))).await?;
    let own = Memory::now();
    let meta = meta::indicators(shared, own);
    let mut held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
    let said = status::Said { workers: &workers, held: &held, gateways: &gateways, own, meta };
    let mut status = status::summarise(leadership, &domains, &partitions, &views, &said);
    let declared: BTreeSet<&str> = shared.options.domains.iter().map(|domain| domain.name.as_str()).collect();
    for domain in &mut status.domains {
        domain.declared = declared.contains(domain.name.as_str());
    }
    shared.board.observe(&status, &said);
    *held = said.hold(&domains);
    Ok(status)
}

/// Reports with the ids of those who said it.
type Named<R> = Vec<(String, R)>;

/// Who beats, by what they are.
fn sort(members: Vec<Member>) -> (Named<WorkerReport>, Named<GatewayReport>) {
    let (mut workers, mut gateways) = (Vec::new(), Vec::new());
    for member in members {
        match serde_json::from_str(&member.report) {
            Ok(Report::Worker(report)) => workers.push((member.id, report)),
            Ok(Report::Gateway(report)) => gateways.push((member.id, report)),
            // It may be a newer kind of node; whoever can't be understood is given nothing to do.
            Err(error) => debug!(member = member.id, %error, "a report that can't be read"),
        }
    }
    (workers, gateways)
}
