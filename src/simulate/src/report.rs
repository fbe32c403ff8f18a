//! What a simulation found: figures, and what was promised next to what was kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::audit::{Audit, FENCED, REPLAY};
use crate::chaos::Happened;
use crate::clients::Ledger;
use crate::network::Traffic;
use crate::server::Held;
use crate::settings::{Faults, Promises, Settings};

/// Memory, and what runs, may have grown by this share between the middle of a run and its end.
const GROWTH_MAX: f64 = 0.15;
/// What a process holds is steady after half of this at the earliest: a shorter run isn't judged by its memory.
const STEADY_AFTER: Duration = Duration::from_secs(600);
/// Of the clients' requests: that of events, and that of labels.
const PRIORITIES: u64 = 2;
/// Entries that may wait in one partition.
const QUEUE_MAX: u64 = 500;
/// The share of look-ups of neighbours that may find none.
const KNN_FAILURES_MAX: f64 = 0.01;
/// The share of attempts that has to succeed, the time that they may take on average, and 99 % of them, in milliseconds.
const SUCCESS_MIN: f64 = 0.99;
const MEAN_MAX_MS: f64 = 100.0;
const P99_MAX_MS: u32 = 2_000;

/// The result of one simulation. All but `wall` is the same whenever the same settings are simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The seed that repeats it.
    pub seed: u64,
    /// Whether everything that was promised was kept.
    pub passed: bool,
    /// What was simulated.
    pub cluster: Simulated,
    /// What clients saw.
    pub requests: Requests,
    /// What went wrong on purpose.
    pub faults: Happened,
    /// How long dead workers were missed, in milliseconds.
    pub recovery: Times,
    /// What the store was asked for, and what it held.
    pub store: StoreFigures,
    /// Each promise, and whether it was kept.
    pub checks: Vec<Check>,
    /// What was not kept, in words.
    pub troubles: Vec<String>,
    /// What depends on the machine.
    pub wall: Wall,
}

/// What was simulated.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulated {
    /// Seconds of load, in simulated time.
    pub seconds: f64,
    /// Requests a second.
    pub rate: f64,
    /// Workers.
    pub workers: u32,
    /// Partitions.
    pub partitions: u32,
    /// Gateways.
    pub gateways: u32,
    /// Coordinators.
    pub coordinators: u32,
    /// The probabilities of each ten seconds.
    pub probabilities: Faults,
    /// Milliseconds from the start of the processes until every partition had an owner.
    pub owned_after_ms: u32,
}

/// What clients saw.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests and repetitions.
    pub attempts: u64,
    /// Attempts that failed; clients repeated them.
    pub failed: u64,
    /// Of those, by a full queue.
    pub refused: u64,
    /// The share that succeeded.
    pub success: f64,
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// Milliseconds from a request to its answer.
    pub latency: Times,
}

/// Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: u32,
    /// 99 % took no longer.
    pub p99: u32,
    /// The longest.
    pub max: u32,
}

impl Times {
    fn of(mut times: Vec<u32>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len() as f64 * share).ceil() as usize;
            times.get(place.saturating_sub(1)).copied().unwrap_or(0)
        };
        // Of whole numbers: floats of which there are none add up to -0.
        let sum = times.iter().copied().map(u64::from).sum::<u64>() as f64;
        Self {
            count: times.len() as u64,
            mean: sum / (times.len() as f64).max(1.0),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// What the store was asked for, and what it held.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreFigures {
    /// Calls a second of simulated time.
    pub calls_per_second: f64,
    /// The same by name.
    pub calls: BTreeMap<&'static str, f64>,
    /// Megabytes a second of assignments that workers and coordinators read.
    pub assignment_mb_per_second: f64,
    /// Messages that were lost.
    pub messages_lost: u64,
    /// Messages that were far slower than the others.
    pub messages_late: u64,
    /// Calls that arrived twice.
    pub calls_doubled: u64,
    /// Checkpoints, each of which was compared with a replay of the log.
    pub checkpoints: u64,
    /// New epochs.
    pub claims: u64,
    /// Bytes of states and logs in the middle of the run and at its end.
    pub held_bytes: [u64; 2],
    /// The most entries that waited in one partition.
    pub waiting_max: u64,
    /// The most entries in one log at a look every second.
    pub log_max: u64,
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it was kept.
    pub kept: bool,
    /// What was found, in words.
    pub found: String,
}

/// What depends on the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wall {
    /// Seconds that the simulation took.
    pub seconds: f64,
    /// Simulated seconds in each of them.
    pub speedup: f64,
    /// Resident bytes of the process in the middle of the load and at its end.
    pub resident_bytes: [u64; 2],
    /// Whether they have grown by too much; nothing of a short run, and where other runs share the process.
    pub memory: Option<Check>,
}

/// All that was observed.
pub struct Observed {
    /// What clients know.
    pub ledger: Ledger,
    /// Requests that never ended.
    pub open: u64,
    /// What went wrong.
    pub happened: Happened,
    /// What went over the network during the load.
    pub traffic: Traffic,
    /// Milliseconds until every partition had an owner.
    pub owned_after_ms: u32,
    /// Bytes held in the middle of the run and at its end: the most of a tenth of it each.
    pub held_bytes: [u64; 2],
    /// The longest log seen.
    pub log_max: u64,
    /// Tasks that lived before the load, and when it and all faults were over.
    pub tasks: [u64; 2],
    /// What the domain says of itself at the end.
    pub described: Option<Value>,
    /// What the store held when all had left.
    pub left: Held,
    /// Seconds that the simulation took.
    pub wall_seconds: f64,
    /// See [`Wall`].
    pub resident_bytes: [u64; 2],
}

/// Judges what was observed.
pub fn judge(settings: &Settings, observed: Observed, audit: &Audit) -> Report {
    let Observed {
        ledger, open, happened, traffic, owned_after_ms, held_bytes, log_max, tasks, described, left, ..
    } = &observed;
    let (open, owned_after_ms, held_bytes, log_max) = (*open, *owned_after_ms, *held_bytes, *log_max);
    let seconds = settings.duration.as_secs_f64();
    let per_second = |count: u64| count as f64 / seconds;
    let latency = Times::of(ledger.answered_ms.clone());
    let success = 1.0 - ledger.failed as f64 / (ledger.attempts as f64).max(1.0);
    let knn = audit.knn_failure_rate();
    let mut checks = Vec::new();
    let mut check = |name, kept, found| checks.push(Check { name, kept, found });

    check(
        "every_request_ends",
        open == 0 && ledger.odd.is_empty(),
        format!("{open} open, {} odd answers", ledger.odd.len()),
    );
    let said = |name: &str| described.as_ref().map(|body| body[name].clone()).unwrap_or_default();
    let (events, digest, labels) = (said("events"), said("appliedDigest"), said("labels"));
    check(
        "no_acknowledged_event_is_lost_or_applied_twice",
        events == ledger.acknowledged && digest == format!("{:016x}", ledger.digest),
        format!(
            "{} acknowledged, {events} applied; digest {:016x}, applied {digest}",
            ledger.acknowledged, ledger.digest
        ),
    );
    check(
        "no_acknowledged_label_is_lost_or_applied_twice",
        labels == ledger.labels,
        format!("{} acknowledged, {labels} applied", ledger.labels),
    );
    let broken = |kind| format!("{} of {} checkpoints broke it", audit.broken(kind), audit.checkpoints);
    check(REPLAY, audit.broken(REPLAY) == 0 && audit.checkpoints > 0, broken(REPLAY));
    check(FENCED, audit.broken(FENCED) == 0, broken(FENCED));
    check(
        "every_crash_is_recovered",
        happened.not_recovered == 0,
        format!("{} of {} crashes of workers were not", happened.not_recovered, happened.worker_crashes),
    );
    check(
        "the_log_is_truncated",
        left.entries == 0 && left.log_bytes == 0,
        format!("{} entries were left; the longest log had {log_max}", left.entries),
    );
    // A gateway has a task for each partition and each priority that was ever asked for.
    let [before, after] = *tasks;
    let allowed = before + PRIORITIES * u64::from(settings.gateways) * u64::from(settings.partitions);
    let found = format!("{before} tasks lived before the load, {after} after it, {allowed} are accounted for");
    check("nothing_piles_up", growth([allowed, after]) < GROWTH_MAX, found);
    check("queues_stay_below_500", audit.waiting_max < QUEUE_MAX, format!("{} at most", audit.waiting_max));
    check("knn_failures_stay_below_1_percent", knn < KNN_FAILURES_MAX, format!("{:.2} %", knn * 100.0));
    if settings.promises != Promises::None {
        check("more_than_99_percent_succeed", success > SUCCESS_MIN, format!("{:.3} %", success * 100.0));
        check("the_mean_is_below_100_ms", latency.mean < MEAN_MAX_MS, format!("{:.1} ms", latency.mean));
    }
    if settings.promises == Promises::Latency {
        check("99_percent_take_less_than_2_s", latency.p99 < P99_MAX_MS, format!("{} ms", latency.p99));
    }
    let wall = wall(settings, &observed);
    let passed = checks.iter().chain(&wall.memory).all(|check| check.kept);
    Report {
        seed: settings.seed,
        passed,
        cluster: Simulated {
            seconds,
            rate: settings.rate,
            workers: settings.workers,
            partitions: settings.partitions,
            gateways: settings.gateways,
            coordinators: settings.coordinators,
            probabilities: settings.faults.clone(),
            owned_after_ms,
        },
        requests: Requests {
            attempts: ledger.attempts,
            failed: ledger.failed,
            refused: ledger.refused,
            success,
            acknowledged: ledger.acknowledged,
            latency,
        },
        recovery: Times::of(happened.recovered_ms.clone()),
        faults: happened.clone(),
        store: StoreFigures {
            calls_per_second: per_second(traffic.calls.values().sum()),
            calls: traffic.calls.iter().map(|(name, count)| (*name, per_second(*count))).collect(),
            assignment_mb_per_second: per_second(traffic.assignment_bytes) / 1e6,
            messages_lost: traffic.lost,
            messages_late: traffic.delayed,
            calls_doubled: traffic.duplicated,
            checkpoints: audit.checkpoints,
            claims: audit.claims,
            held_bytes,
            waiting_max: audit.waiting_max,
            log_max,
        },
        checks,
        troubles: audit.told().iter().chain(&ledger.odd).cloned().collect(),
        wall,
    }
}

fn wall(settings: &Settings, observed: &Observed) -> Wall {
    let Observed { wall_seconds: seconds, resident_bytes, .. } = *observed;
    let growth = growth(resident_bytes);
    let memory = Check {
        name: "memory_grows_by_less_than_15_percent",
        kept: growth < GROWTH_MAX,
        found: format!("{:.1} % of {} MiB", growth * 100.0, resident_bytes[0] >> 20),
    };
    let speedup = settings.duration.as_secs_f64() / seconds;
    let is_judged = settings.alone && STEADY_AFTER <= settings.duration;
    Wall { seconds, speedup, resident_bytes, memory: is_judged.then_some(memory) }
}

/// By which share the second is more than the first.
fn growth([before, after]: [u64; 2]) -> f64 {
    after as f64 / (before as f64).max(1.0) - 1.0
}
