//! What goes wrong, and when: every round each process, the store and its clock draw their lots.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::chance::Chance;
use crate::cluster::{Cluster, Role, StartError};
use crate::network::{Cut, Network};
use crate::server::Server;
use crate::settings::{Faults, ROUND};

/// How often it is looked whether the partitions of a dead worker are owned again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After so long the crash counts as never recovered: twenty leases.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// How long a process stays away.
const AWAY: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(4);
/// How long a node is cut off, or slow.
const EPISODE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(8);
/// How much longer everything takes to and from a slow node.
const SLOW_BY: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_millis(300);
/// How long the store is away.
const STORE_AWAY: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_secs(3);
/// How far the clock jumps at most, in milliseconds.
const JUMP_MAX_MS: f64 = 3_000.0;

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happened {
    /// Workers that died on the spot.
    pub worker_crashes: u64,
    /// Coordinators that did.
    pub coordinator_crashes: u64,
    /// Gateways that did.
    pub gateway_crashes: u64,
    /// Processes that were asked to leave.
    pub restarts: u64,
    /// Times that a node and the store couldn't reach each other.
    pub cuts: u64,
    /// Times that a node was slow.
    pub slow: u64,
    /// Times that the store was away.
    pub store_away: u64,
    /// Jumps of the clock.
    pub clock_jumps: u64,
    /// Of each crash of a worker: milliseconds until others, or its next life, owned all that it had owned.
    #[serde(skip)]
    pub recovered_ms: Vec<u32>,
    /// Crashes of workers after which some partition stayed without an owner.
    pub not_recovered: u64,
}

/// Whoever makes things go wrong. Clones are the same one.
#[derive(Clone)]
pub struct Chaos {
    pub cluster: Cluster,
    pub network: Network,
    pub server: Server,
    pub happened: Arc<Mutex<Happened>>,
}

impl Chaos {
    /// What has gone wrong so far.
    pub fn happened(&self) -> MutexGuard<'_, Happened> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Round after round of faults for a time; returns when the last of them is over.
    ///
    /// # Errors
    /// [`StartError`] of a process that was to come back.
    pub async fn rage(&self, seed: u64, faults: &Faults, during: Duration) -> Result<(), StartError> {
        let mut chance = Chance::new(seed, "faults");
        let ends_at = Instant::now() + during;
        let mut under_way = JoinSet::new();
        while Instant::now() + ROUND <= ends_at {
            self.round(&mut chance, faults, &mut under_way);
            sleep(ROUND).await;
        }
        while let Some(ended) = under_way.join_next().await {
            // A panic within a fault is one of the simulation itself, and ends it.
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    }

    fn round(&self, chance: &mut Chance, faults: &Faults, under_way: &mut JoinSet<Result<(), StartError>>) {
        for (name, role) in self.cluster.names() {
            // All lots are drawn whatever they say, so that one fault more doesn't change all that follow.
            let at = chance.duration(&(Duration::ZERO..ROUND));
            let (away, episode) = (chance.duration(&AWAY), chance.duration(&EPISODE));
            let slow_by = chance.duration(&SLOW_BY);
            let cut = if chance.happens(0.5) { Cut::Both } else { Cut::Answers };
            let lots = [faults.crash, faults.restart, faults.cut, faults.slow].map(|lot| chance.happens(lot));
            let (chaos, name) = (self.clone(), name.clone());
            let [crash, restart, is_cut, is_slow] = lots;
            if crash || restart {
                let (chaos, name) = (chaos.clone(), name.clone());
                under_way.spawn(async move {
                    sleep(at).await;
                    if crash { chaos.crash(&name, role, away).await } else { chaos.restart(&name, away).await }
                });
            }
            if is_cut || is_slow {
                under_way.spawn(async move {
                    sleep(at).await;
                    chaos.disturb(&name, is_cut.then_some(cut), if is_slow { slow_by } else { Duration::ZERO });
                    sleep(episode).await;
                    chaos.network.cut(&name, None);
                    chaos.network.slow(&name, Duration::ZERO);
                    Ok(())
                });
            }
        }
        let at = chance.duration(&(Duration::ZERO..ROUND));
        let (away, by_ms) = (chance.duration(&STORE_AWAY), (chance.signed() * JUMP_MAX_MS) as i64);
        let [is_away, jumps] = [faults.store_away, faults.clock_jump].map(|lot| chance.happens(lot));
        let chaos = self.clone();
        under_way.spawn(async move {
            sleep(at).await;
            if jumps {
                info!(by_ms, "the clock of the store jumps");
                chaos.server.jump(by_ms);
                chaos.happened().clock_jumps += 1;
            }
            if is_away {
                info!(?away, "the store is away");
                chaos.happened().store_away += 1;
                chaos.network.set_store_away(true);
                sleep(away).await;
                chaos.network.set_store_away(false);
            }
            Ok(())
        });
    }

    fn disturb(&self, name: &str, cut: Option<Cut>, slow_by: Duration) {
        if let Some(cut) = cut {
            info!(process = name, ?cut, "is cut off");
            self.happened().cuts += 1;
            self.network.cut(name, Some(cut));
        }
        if !slow_by.is_zero() {
            info!(process = name, ?slow_by, "is slow");
            self.happened().slow += 1;
            self.network.slow(name, slow_by);
        }
    }

    /// Kills a process, starts it again, and watches what becomes of what it owned.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn crash(&self, name: &str, role: Role, away: Duration) -> Result<(), StartError> {
        if !self.cluster.is_up(name) {
            return Ok(());
        }
        let crashed_at = Instant::now();
        let owned = self.server.owned_by(name);
        self.cluster.crash(name);
        match role {
            Role::Worker => self.happened().worker_crashes += 1,
            Role::Coordinator => self.happened().coordinator_crashes += 1,
            Role::Gateway => self.happened().gateway_crashes += 1,
        }
        let back = async {
            sleep(away).await;
            self.cluster.start(name)
        };
        let recovered = async {
            while owned.iter().any(|(key, epoch)| self.server.epoch(key) <= *epoch) {
                if crashed_at.elapsed() > RECOVERY_MAX {
                    self.happened().not_recovered += 1;
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
            if role == Role::Worker && !owned.is_empty() {
                let took = u32::try_from(crashed_at.elapsed().as_millis()).unwrap_or(u32::MAX);
                self.happened().recovered_ms.push(took);
            }
        };
        tokio::join!(back, recovered).0
    }

    async fn restart(&self, name: &str, away: Duration) -> Result<(), StartError> {
        if self.cluster.is_up(name) {
            self.happened().restarts += 1;
            self.cluster.leave(name).await;
            sleep(away).await;
            self.cluster.start(name)?;
        }
        Ok(())
    }
}
