//! Many plans: learns the references, runs every plan, keeps count, and writes a file for each plan that went wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::fault::{Fault, Mutant};
use crate::journal::Write;
use crate::oracle::Reference;
use crate::run::{Plan, World};
use crate::workload;

/// Runs without faults from which a reference is learned.
const REFERENCES: usize = 3;
/// Seconds of silence in them where a plan is run again.
const REFERENCE_SILENCE: u64 = 1;
/// How long watches that lag say nothing: several passes are made meanwhile.
const HELD_MS: u64 = 8_000;
/// After how many plans it is said how far the run is.
const TELL_EVERY: usize = 20;
/// Seconds in which one plan looks whether anything is written at rest.
const LONG_SILENCE: u64 = 60;

/// What is run.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Names of workloads.
    pub workloads: Vec<String>,
    /// Every which write is a point of harm.
    pub stride: usize,
    /// Plans at a time.
    pub parallel: usize,
    /// Seconds at the end of a plan in which nothing must be written.
    pub silence: u64,
    /// Whether crashes are all, or every other fault comes too.
    pub only_crashes: bool,
    /// Whether bugs are planted as well.
    pub mutants: bool,
}

/// What came of it so far; the contents of `report.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whether this is all; otherwise the run was cut short.
    pub complete: bool,
    /// Plans whose fault happened, and the one with a long silence instead.
    pub plans: usize,
    /// Those in which an oracle found something.
    pub red: usize,
    /// Planted bugs.
    pub mutants: usize,
    /// Those that an oracle saw.
    pub mutants_caught: usize,
    /// How long all of it took.
    pub seconds: f64,
    /// Plans by workload.
    pub by_workload: BTreeMap<String, usize>,
    /// The most writes of a run without faults, by workload.
    pub writes: BTreeMap<String, usize>,
    /// What was found, by plan.
    pub findings: BTreeMap<String, Vec<String>>,
    /// What saw each planted bug; nothing where none did.
    pub caught_by: BTreeMap<String, Vec<String>>,
}

/// A red plan with everything that shows why, and enough to run it again.
#[derive(Serialize, Deserialize)]
pub struct Replay {
    /// The plan.
    pub plan: Plan,
    /// What was found.
    pub findings: Vec<String>,
    /// What was written.
    pub writes: Vec<Write>,
}

/// The planted bugs, each with the plan that shows it.
fn planted(silence: u64) -> Vec<Plan> {
    let plan =
        |workload: &str, fault, mutant| Plan { workload: workload.to_owned(), fault, mutant: Some(mutant), silence };
    Mutant::ALL
        .into_iter()
        .map(|mutant| match mutant {
            Mutant::DeleteWithoutUid | Mutant::DeleteTwice | Mutant::ForgetDelete => {
                plan("suspend", Fault::Nothing, mutant)
            }
            Mutant::ForgetService | Mutant::ForgetRevision | Mutant::RepeatStatus => {
                plan("apply", Fault::Nothing, mutant)
            }
            Mutant::ForgetOwner => plan("delete", Fault::Nothing, mutant),
            Mutant::ForgetPassword | Mutant::Remake | Mutant::StrayLabel => {
                plan("heal", Fault::KillBefore { write: 1 }, mutant)
            }
            Mutant::ShrinkWorkers | Mutant::ForgetStatus => plan("scale", Fault::KillBefore { write: 1 }, mutant),
        })
        .collect()
}

/// The plans of a workload whose reference took so many writes.
fn plans(workload: &str, writes: usize, selection: &Selection) -> Vec<Plan> {
    let plan = |fault| Plan { workload: workload.to_owned(), fault, mutant: None, silence: selection.silence };
    let mut plans = Vec::new();
    for write in (1..=writes).step_by(selection.stride.max(1)) {
        plans.push(plan(Fault::KillBefore { write }));
        plans.push(plan(Fault::KillAfter { write }));
        if workload == "apply" && !selection.only_crashes {
            plans.push(plan(Fault::DeleteOwnerBefore { write }));
            plans.push(plan(Fault::DeleteOwnerAndKill { write }));
        }
    }
    if !selection.only_crashes {
        if workload == "apply" {
            plans.push(Plan { silence: LONG_SILENCE, ..plan(Fault::Nothing) });
        }
        plans.extend(
            [
                Fault::ConflictOnFirstTry,
                Fault::TooManyOnFirstTry,
                Fault::ErrorOnFirstTry,
                Fault::AnswerLostOnFirstTry,
                Fault::Slow { milliseconds: 300 },
                Fault::CutWatchesAt { write: 1 },
                Fault::ExpireWatchesAt { write: 1 },
                Fault::HoldWatchesAt { write: 1, milliseconds: HELD_MS },
            ]
            .map(plan),
        );
    }
    plans
}

/// Learns the reference of a workload.
pub async fn learn(world: &World, workload: &str, silence: u64) -> Result<Reference, Error> {
    let plan = Plan { workload: workload.to_owned(), fault: Fault::Nothing, mutant: None, silence };
    let harms = workload::find(workload).map_or(0, |workload| workload.harms());
    let mut runs = Vec::new();
    // One after the other: what is written in the same second would look as if it didn't depend on time.
    for _ in 0..REFERENCES {
        let outcome = world.run(&plan).await?;
        if let Some(stuck) = outcome.stuck {
            return Err(format!("{workload} doesn't settle without faults: {stuck}").into());
        }
        runs.push((outcome.lines, outcome.writes));
    }
    Ok(Reference::learn(&runs, harms))
}

/// Runs a selection; red plans become files in `folder`.
pub async fn run(world: Arc<World>, selection: &Selection, folder: &Path) -> Result<Report, Error> {
    let began = Instant::now();
    let seats = Arc::new(Semaphore::new(selection.parallel.max(1)));
    let mut learning = JoinSet::new();
    let mut needed = selection.workloads.clone();
    if selection.mutants {
        needed.extend(planted(selection.silence).into_iter().map(|plan| plan.workload));
    }
    needed.sort();
    needed.dedup();
    for workload in needed {
        let (world, seats, silence) = (world.clone(), seats.clone(), selection.silence);
        learning.spawn(async move {
            let _seat = seats.acquire().await?;
            let reference = learn(&world, &workload, silence).await?;
            println!("    {workload}: {} writes without faults", reference.writes);
            Ok::<_, Error>((workload, reference))
        });
    }
    let mut references = BTreeMap::new();
    while let Some(learned) = learning.join_next().await {
        let (workload, reference) = learned??;
        references.insert(workload, Arc::new(reference));
    }
    let mut report = Report::default();
    let mut ended_plans = 0;
    let mut running = JoinSet::new();
    for workload in &selection.workloads {
        let Some(reference) = references.get(workload) else { continue };
        report.writes.insert(workload.clone(), reference.writes);
        for plan in plans(workload, reference.writes, selection) {
            running.spawn(judged(world.clone(), seats.clone(), plan, reference.clone()));
        }
    }
    if selection.mutants {
        for plan in planted(selection.silence) {
            let Some(reference) = references.get(&plan.workload) else { continue };
            running.spawn(judged(world.clone(), seats.clone(), plan, reference.clone()));
        }
    }
    let total = running.len();
    while let Some(ended) = running.join_next().await {
        let judged = ended??;
        ended_plans += 1;
        let name = judged.replay.plan.name();
        let findings = &judged.replay.findings;
        if let Some(mutant) = judged.replay.plan.mutant {
            report.mutants += 1;
            report.mutants_caught += usize::from(!findings.is_empty());
            println!("    planted {mutant:?}: {}", findings.first().map_or("NOT SEEN", String::as_str));
            report.caught_by.insert(format!("{mutant:?}"), findings.clone());
        } else if judged.fired || judged.replay.plan.fault == Fault::Nothing {
            report.plans += 1;
            *report.by_workload.entry(judged.replay.plan.workload.clone()).or_default() += 1;
            if !findings.is_empty() {
                report.red += 1;
                println!("    RED {name} ({:.1} s)", judged.took.as_secs_f64());
                for finding in findings {
                    println!("        {finding}");
                }
                std::fs::write(replay_file(folder, &name), serde_json::to_string_pretty(&judged.replay)?)?;
                report.findings.insert(name, findings.clone());
            }
        }
        report.seconds = began.elapsed().as_secs_f64();
        report.complete = ended_plans == total;
        // Kept up to date, so that a run that is cut short has shown what it saw.
        std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&report)?)?;
        if ended_plans % TELL_EVERY == 0 {
            println!("    {ended_plans} of {total} plans, {} red, {:.0} s", report.red, report.seconds);
        }
    }
    Ok(report)
}

/// The file of a red plan.
fn replay_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

struct Judged {
    replay: Replay,
    fired: bool,
    took: Duration,
}

async fn judged(
    world: Arc<World>,
    seats: Arc<Semaphore>,
    plan: Plan,
    reference: Arc<Reference>,
) -> Result<Judged, Error> {
    let _seat = seats.acquire().await?;
    let outcome = world.run(&plan).await?;
    let findings = outcome.judge(&plan, &reference);
    Ok(Judged { replay: Replay { plan, findings, writes: outcome.writes }, fired: outcome.fired, took: outcome.took })
}

/// Runs a plan once more, with a reference that is learned anew.
pub async fn replay(world: &World, plan: &Plan) -> Result<Replay, Error> {
    let reference = learn(world, &plan.workload, REFERENCE_SILENCE).await?;
    let outcome = world.run(plan).await?;
    let mut findings = outcome.judge(plan, &reference);
    if !outcome.fired && plan.fault != Fault::Nothing {
        findings.push("the fault never happened: there were fewer writes".to_owned());
    }
    Ok(Replay { plan: plan.clone(), findings, writes: outcome.writes })
}
