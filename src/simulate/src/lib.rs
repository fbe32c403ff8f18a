//! A cluster of Hebb on simulated time: the real gateways, coordinators, workers and partitions, in one thread, over a
//! simulated network and store, under faults that a seed decides.
//!
//! Time stands still while anything is being done, and jumps to the next thing that is to happen when nothing is: hours take
//! minutes, and the same seed gives the same run. No real clock, socket or file is involved in what happens.

mod audit;
mod chance;
mod chaos;
mod clients;
mod cluster;
mod network;
mod report;
mod server;
mod settings;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hebb_node::{Memory, Store};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use self::chaos::Chaos;
use self::clients::Clients;
use self::cluster::{Cluster, Role};
use self::network::Network;
use self::report::{Observed, judge};

pub use self::audit::Audit;
pub use self::chaos::Happened;
pub use self::cluster::StartError;
pub use self::report::{Check, Report, Requests, Simulated, StoreFigures, Times, Wall};
pub use self::server::{Held, Server};
pub use self::settings::{Faults, Messages, Profile, Promises, ROUND, Settings};

/// How long a cluster may take to own all its partitions for the first time.
const START_MAX: Duration = Duration::from_secs(60);
/// How long clients may take to get their last answers when all faults are over.
const CALM_MAX: Duration = Duration::from_secs(120);
/// Beyond the interval of checkpoints: until what was answered last is in one.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the one worker that dies half-way stays away: five leases.
const ONE_AWAY: Duration = Duration::from_secs(15);
/// At how many moments, how far apart, tasks are counted: in one of them few messages are under way.
const MOMENTS: usize = 50;
/// See [`MOMENTS`].
const MOMENT: Duration = Duration::from_millis(17);
/// How often it is looked at the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// There is no runtime.
    #[error("can't make a runtime")]
    Runtime(#[source] std::io::Error),
    /// A process can't be started.
    #[error("can't start a process")]
    Start(#[from] StartError),
}

/// Simulates, and tells `progress` every simulated second how much of the load is over.
///
/// # Errors
/// [`SimulateError`]. What a cluster does wrong is no error: see [`Report::passed`].
pub fn simulate(settings: &Settings, progress: impl FnMut(Duration)) -> Result<Report, SimulateError> {
    simulate_on(settings, Store::new, progress)
}

/// Simulates with something in front of the store, for example a fault that has to be found.
///
/// # Errors
/// [`SimulateError`].
pub fn simulate_on(
    settings: &Settings,
    front: impl FnOnce(Server) -> Store,
    progress: impl FnMut(Duration),
) -> Result<Report, SimulateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(SimulateError::Runtime)?;
    Ok(runtime.block_on(play(settings, front, progress))?)
}

async fn play(
    settings: &Settings,
    front: impl FnOnce(Server) -> Store,
    mut progress: impl FnMut(Duration),
) -> Result<Report, StartError> {
    let wall_began_at = std::time::Instant::now();
    let server = Server::new();
    let network = Network::new(front(server.clone()), settings.seed, settings.messages.clone());
    let cluster = Cluster::new(network.clone(), settings);
    let owned_after = start(&cluster, &server, settings).await?;

    let tasks_before = tasks().await;
    let before = network.traffic();
    let clients = Clients::new(cluster.clone());
    let happened = Arc::new(Mutex::new(Happened::default()));
    let chaos = Chaos { cluster: cluster.clone(), network: network.clone(), server: server.clone(), happened };
    let mut watch = Watch::new(settings.duration);
    let (raged, died, (), traffic) = tokio::join!(
        chaos.rage(settings.seed, &settings.faults, settings.duration),
        one_dies(&chaos, settings),
        clients.send(settings.seed, settings.rate, settings.duration),
        async {
            while watch.look(&server) {
                progress(watch.passed());
                sleep(LOOK_EVERY).await;
            }
            network.traffic().since(&before)
        },
    );
    raged.and(died)?;

    network.heal();
    cluster.start_all()?;
    let calm_until = Instant::now() + CALM_MAX;
    while clients.open() > 0 && Instant::now() < calm_until {
        sleep(LOOK_EVERY).await;
    }
    let open = clients.open();
    clients.give_up();
    sleep(settings.checkpoint_interval + settings.messages.late_by.end + SETTLE).await;
    let tasks_after = tasks().await;
    let described = clients.describe(settings.seed).await;
    leave(&cluster).await;

    let observed = Observed {
        ledger: clients.known(),
        open,
        happened: chaos.happened().clone(),
        traffic,
        owned_after_ms: u32::try_from(owned_after.as_millis()).unwrap_or(u32::MAX),
        held_bytes: watch.held_bytes,
        log_max: watch.log_max,
        tasks: [tasks_before, tasks_after],
        described,
        left: server.held(),
        wall_seconds: wall_began_at.elapsed().as_secs_f64(),
        resident_bytes: watch.resident_bytes,
    };
    Ok(server.audit(|audit| judge(settings, observed, audit)))
}

/// Starts everything, and waits until every partition has an owner.
async fn start(cluster: &Cluster, server: &Server, settings: &Settings) -> Result<Duration, StartError> {
    let began_at = Instant::now();
    cluster.start_all()?;
    let is_owned = |held: Held| held.partitions == u64::from(settings.partitions) && held.unowned == 0;
    while !is_owned(server.held()) && began_at.elapsed() < START_MAX {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(began_at.elapsed())
}

/// Kills a worker half-way, where that is wanted.
async fn one_dies(chaos: &Chaos, settings: &Settings) -> Result<(), StartError> {
    if settings.one_dies {
        sleep(settings.duration / 2).await;
        chaos.crash("worker-0", Role::Worker, ONE_AWAY).await?;
    }
    Ok(())
}

/// Asks all to leave: those first who would give to others what the last are about to leave.
async fn leave(cluster: &Cluster) {
    for leaving in [Role::Gateway, Role::Coordinator, Role::Worker] {
        let names = cluster.names().into_iter().filter(|(_, role)| *role == leaving);
        let leaves: Vec<_> = names.map(|(name, _)| async move { cluster.leave(&name).await }).collect();
        futures::future::join_all(leaves).await;
    }
}

/// How many tasks live, at the quietest of some moments.
async fn tasks() -> u64 {
    let mut fewest = usize::MAX;
    for _ in 0..MOMENTS {
        fewest = fewest.min(Handle::current().metrics().num_alive_tasks());
        sleep(MOMENT).await;
    }
    fewest as u64
}

/// Looks at the store now and then.
struct Watch {
    began_at: Instant,
    duration: Duration,
    held_bytes: [u64; 2],
    resident_bytes: [u64; 2],
    log_max: u64,
}

impl Watch {
    fn new(duration: Duration) -> Self {
        let began_at = Instant::now();
        Self { began_at, duration, held_bytes: [0; 2], resident_bytes: [0; 2], log_max: 0 }
    }

    fn passed(&self) -> Duration {
        self.began_at.elapsed().min(self.duration)
    }

    /// Takes note of what the store holds; whether there is more to see.
    fn look(&mut self, server: &Server) -> bool {
        let share = self.began_at.elapsed().as_secs_f64() / self.duration.as_secs_f64();
        let held = server.held();
        let bytes = held.state_bytes + held.log_bytes;
        self.log_max = self.log_max.max(held.longest_log);
        let span = match share {
            0.5..0.6 => Some(0),
            0.9.. => Some(1),
            _ => None,
        };
        if let Some(span) = span {
            self.held_bytes[span] = self.held_bytes[span].max(bytes);
            self.resident_bytes[span] = Memory::now().bytes;
        }
        share < 1.0
    }
}
