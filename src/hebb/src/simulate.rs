//! `hebb simulate`: a cluster under faults on simulated time; what was promised, and what was kept.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hebb_simulate::{Faults, Profile, ROUND, Report, Settings, SimulateError, Times, simulate};
use indicatif::{ProgressBar, ProgressStyle};
use tracing::dispatcher::{Dispatch, with_default};

use crate::cli::Outcome;
use crate::kubernetes::Output;
use crate::output::{percent, table};

/// Simulates a whole cluster in one thread: the real gateways, coordinators, workers and partitions over a simulated
/// network, store and clock. A seed decides every fault, so what one run finds the next one finds again.
///
/// Exits with 1, and the command to repeat it, when a promise isn't kept.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    hebb simulate                                        ten minutes of a small cluster, in seconds\n  \
    hebb simulate --seeds 200 --profile chaos            two hundred short runs with far more faults\n  \
    hebb simulate --profile nightly -o json              eight hours, for a machine to read\n  \
    hebb simulate --profile sizing --workers 100         what a hundred workers ask of the store\n  \
    LOG_LEVEL=debug hebb simulate --seed 7 --logs        what every process said")]
pub struct Options {
    /// The seed of the first run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs, each with the next seed
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// What is simulated, apart from what is said here
    #[arg(long, value_enum, default_value_t = ProfileName::Standard)]
    profile: ProfileName,
    /// How long clients send events, in simulated time, for example 10m or 8h
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Events a second
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// The probability that a process crashes within ten seconds, 0 to 1
    #[arg(long, value_name = "P", value_parser = probability)]
    crash_probability: Option<f64>,
    /// Workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    workers: Option<u32>,
    /// Partitions; twice as many as workers, unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: Option<u32>,
    #[command(flatten)]
    output: Output,
    /// Show what the processes log, too
    #[arg(long)]
    logs: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    /// Ten minutes of what a cluster has to put up with
    Standard,
    /// Eight hours of it
    Nightly,
    /// A minute of far more than that
    Chaos,
    /// Two minutes in which one worker dies and nothing else happens, 10 events a second for each worker
    Sizing,
}

/// Something that was promised was not kept.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {runs} runs broke a promise; to repeat the first: {command}")]
struct Broken {
    failed: usize,
    runs: usize,
    command: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<hebb_api::Duration>().map_err(|error| error.to_string())?;
    let allowed = ROUND..=Duration::from_secs(30 * 24 * 3600);
    allowed.contains(&duration.0).then_some(duration.0).ok_or_else(|| "10s to 720h are possible".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    (0.01..=100_000.0).contains(&rate).then_some(rate).ok_or_else(|| "0.01 to 100000 are possible".to_owned())
}

fn probability(text: &str) -> Result<f64, String> {
    let probability = text.parse::<f64>().map_err(|error| error.to_string())?;
    (0.0..=1.0).contains(&probability).then_some(probability).ok_or_else(|| "it is from 0 to 1".to_owned())
}

impl Options {
    fn settings(&self, seed: u64) -> Settings {
        let profile = match self.profile {
            ProfileName::Standard => Profile::Standard,
            ProfileName::Nightly => Profile::Nightly,
            ProfileName::Chaos => Profile::Chaos,
            ProfileName::Sizing => Profile::Sizing,
        };
        let settings = profile.settings(seed);
        let workers = self.workers.unwrap_or(settings.workers);
        let rate = match self.profile {
            ProfileName::Sizing => 10.0 * f64::from(workers),
            _ => settings.rate,
        };
        let crash = self.crash_probability.unwrap_or(settings.faults.crash);
        Settings {
            duration: self.duration.unwrap_or(settings.duration),
            rate: self.rate.unwrap_or(rate),
            workers,
            partitions: self.partitions.unwrap_or(2 * workers),
            faults: Faults { crash, ..settings.faults },
            alone: self.seeds == 1,
            ..settings
        }
    }

    /// The command that repeats a run.
    fn command(&self, seed: u64) -> String {
        let profile = self.profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut command = format!("hebb simulate --profile {profile} --seed {seed}");
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push_str(&format!(" --{name} {value}"));
            }
        };
        add("duration", self.duration.map(|duration| format!("{}s", duration.as_secs())));
        add("rate", self.rate.map(|rate| rate.to_string()));
        add("crash-probability", self.crash_probability.map(|probability| probability.to_string()));
        add("workers", self.workers.map(|workers| workers.to_string()));
        add("partitions", self.partitions.map(|partitions| partitions.to_string()));
        command
    }
}

pub fn run(options: Options) -> Outcome {
    let reports = simulate_all(&options)?;
    let (text, value) = match reports.as_slice() {
        [report] => (describe(report), serde_json::to_value(report)?),
        // Of more runs than one an array.
        reports => (describe_all(reports), serde_json::to_value(reports)?),
    };
    let printed = options.output.format().print(text.trim_end(), &value);
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.passed).collect();
    match failed.first() {
        Some(first) => {
            let command = options.command(first.seed);
            Err(Broken { failed: failed.len(), runs: reports.len(), command }.into())
        }
        None => printed,
    }
}

/// Runs every seed, as many at once as there are processors; the reports in the order of the seeds.
fn simulate_all(options: &Options) -> Result<Vec<Report>, SimulateError> {
    let seconds = options.settings(options.seed).duration.as_secs();
    let bar = progress_bar(seconds.saturating_mul(options.seeds));
    let next = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    let work = || -> Result<(), SimulateError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return Ok(());
            }
            let settings = options.settings(options.seed.wrapping_add(number));
            let mut told = 0;
            let report = simulate(&settings, |passed| {
                bar.inc(passed.as_secs().saturating_sub(told));
                told = passed.as_secs();
            })?;
            reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, report));
        }
    };
    let quietly = || if options.logs { work() } else { with_default(&Dispatch::none(), work) };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = threads.min(usize::try_from(options.seeds).unwrap_or(usize::MAX));
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(quietly)).collect();
        // A panic of a simulation is one of this process.
        running.into_iter().try_for_each(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    bar.finish_and_clear();
    let mut reports = reports.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.sort_by_key(|(number, _)| *number);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn progress_bar(seconds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} s simulated  {per_sec}  {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// The most important figures of one run, and every promise.
fn describe(report: &Report) -> String {
    let Report { cluster, requests, faults, recovery, store, wall, .. } = report;
    let times = |times: &Times| {
        format!("{:.1} ms mean, {} ms p50, {} ms p99, {} ms at most", times.mean, times.p50, times.p99, times.max)
    };
    let rows = [
        ("seed", report.seed.to_string()),
        (
            "cluster",
            format!(
                "{} workers, {} partitions, {} gateways, {} coordinators",
                cluster.workers, cluster.partitions, cluster.gateways, cluster.coordinators
            ),
        ),
        ("load", format!("{} events/s for {:.0} s", cluster.rate, cluster.seconds)),
        ("requests", format!("{} attempts, {} succeeded", requests.attempts, percent(requests.success))),
        ("answers", times(&requests.latency)),
        (
            "crashes",
            format!(
                "{} workers, {} coordinators, {} gateways",
                faults.worker_crashes, faults.coordinator_crashes, faults.gateway_crashes
            ),
        ),
        (
            "other faults",
            format!(
                "{} restarts, {} cut off, {} slow, {} times without the store, {} jumps of the clock",
                faults.restarts, faults.cuts, faults.slow, faults.store_away, faults.clock_jumps
            ),
        ),
        ("recovery", times(recovery)),
        (
            "store",
            format!("{:.0} calls/s, {:.3} MB/s of assignments", store.calls_per_second, store.assignment_mb_per_second),
        ),
        ("took", format!("{:.1} s, {:.0} times as fast as the clock", wall.seconds, wall.speedup)),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    let mut text = table(&rows);
    text.push('\n');
    let checks = report.checks.iter().chain(&wall.memory).map(|check| {
        let name = check.name.replace('_', " ");
        vec![if check.kept { "kept" } else { "BROKEN" }.to_owned(), name, check.found.clone()]
    });
    text.push_str(&table(&checks.collect::<Vec<_>>()));
    for trouble in &report.troubles {
        text.push_str(&format!("  {trouble}\n"));
    }
    text
}

/// One line for all runs, and one for each that broke a promise.
fn describe_all(reports: &[Report]) -> String {
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let mut text = format!(
        "{} runs, {} with every promise kept: {} events acknowledged, {} crashes, {} checkpoints compared with a replay\n",
        reports.len(),
        reports.iter().filter(|report| report.passed).count(),
        sum(|report| report.requests.acknowledged),
        sum(|report| {
            let faults = &report.faults;
            faults.worker_crashes + faults.coordinator_crashes + faults.gateway_crashes
        }),
        sum(|report| report.store.checkpoints),
    );
    for report in reports.iter().filter(|report| !report.passed) {
        for check in report.checks.iter().chain(&report.wall.memory).filter(|check| !check.kept) {
            text.push_str(&format!("seed {}: {}: {}\n", report.seed, check.name.replace('_', " "), check.found));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Result<Options, clap::Error> {
        Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace())).map(|line| line.options)
    }

    #[test]
    fn the_command_that_is_printed_repeats_the_run() {
        let line =
            "--profile chaos --seed 4 --duration 20s --rate 5 --crash-probability 0.5 --workers 2 --partitions 3";
        let options = parsed(line).unwrap();
        let command = options.command(9);
        let again = parsed(command.strip_prefix("hebb simulate").unwrap()).unwrap();
        assert_eq!(again.settings(again.seed), options.settings(9));
        assert!(again.settings(1).alone);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--duration 1s", "--rate 0", "--crash-probability 1.1", "--workers 0", "--seeds 0", "--rate x"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
