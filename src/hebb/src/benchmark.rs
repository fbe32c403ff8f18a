//! `hebb benchmark`: how fast patterns are perceived on this machine, by a whole system in this process: gateway, coordinator,
//! workers and a log in a folder.

use std::error::Error;
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use hebb_node::{System, SystemError, create_local};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::cli::Outcome;
use crate::kubernetes::Output;
use crate::node::{Stopped, runtime, wait_for_signal};
use crate::output::table;

/// The domain that the signals go to.
const DOMAIN: &str = "benchmark";
/// Shapes that the signals repeat: what is found is worth something only if it comes back.
const SHAPES: usize = 8;

#[derive(Args)]
#[command(after_help = "Examples:
  hebb benchmark --signals 1000 --workers 8
  hebb benchmark --signals 1000 --workers 8 -o json")]
pub struct Options {
    /// Signals to perceive
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    signals: u32,
    /// Workers in this process
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=500))]
    workers: u16,
    /// Samples of a signal
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=4_096))]
    samples: u32,
    /// Signals that are under way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    batch_size: u16,
    /// Seed of the signals
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    worker_count: u16,
    tasks_processed: usize,
    patterns_discovered: usize,
    patterns_recognised: usize,
    seconds: f64,
    throughput_per_sec: f64,
    avg_latency_ms: f64,
    p50_latency_ms: f64,
    p99_latency_ms: f64,
}

/// Noisy repetitions of a few shapes.
fn signals(count: usize, samples: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = StdRng::seed_from_u64(seed);
    let signal = |place: usize| {
        let shape = place % SHAPES;
        let (pace, bend) = (0.15 + shape as f32 * 0.07, 1.0 + shape as f32);
        let mut value = |sample: usize| {
            let angle = sample as f32 * pace;
            angle.sin() + (angle * bend).cos() / 2.0 + random.random_range(-0.05..0.05)
        };
        (0..samples).map(&mut value).collect()
    };
    (0..count).map(signal).collect()
}

/// The latency below which so much of all lies, in milliseconds. `sorted` holds at least one.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let place = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[place.min(sorted.len() - 1)].as_secs_f64() * 1e3
}

/// Measures, unless it is stopped; the system is ended in either case, and its folder goes with it.
async fn measure(options: &Options) -> Result<Report, Box<dyn Error>> {
    let mut stopped = pin!(wait_for_signal());
    let system = tokio::select! {
        // First, so that a signal is heard before there is a folder.
        biased;
        heard = &mut stopped => return Err(Stopped(heard?).into()),
        system = create_local(usize::from(options.workers)) => system?,
    };
    let measured = tokio::select! {
        heard = stopped => Err(heard.map_or_else(Into::into, |signal| Stopped(signal).into())),
        measured = perceive(&system, options) => measured.map_err(Into::into),
    };
    system.close().await;
    measured
}

async fn perceive(system: &System, options: &Options) -> Result<Report, SystemError> {
    let all = signals(options.signals as usize, options.samples as usize, options.seed);
    let batch = usize::from(options.batch_size);
    // Until every partition has an owner, which takes a moment once; a few signals a partition reach each of them.
    let first = vec![all[0].clone(); usize::from(options.workers) * 8];
    system.batch_perceive(&first, DOMAIN, batch).await?;
    let started = Instant::now();
    let timed = stream::iter(&all).map(|signal| async move {
        let begun = Instant::now();
        system.perceive(signal, DOMAIN).await.map(|found| (found, begun.elapsed()))
    });
    let answers: Vec<_> = timed.buffered(batch).try_collect().await?;
    let seconds = started.elapsed().as_secs_f64();
    let mut latencies: Vec<Duration> = answers.iter().map(|(_, latency)| *latency).collect();
    latencies.sort_unstable();
    let found = answers.iter().flat_map(|(found, _)| found);
    let (new, known): (Vec<_>, Vec<_>) = found.partition(|pattern| pattern.new);
    Ok(Report {
        worker_count: options.workers,
        tasks_processed: answers.len(),
        patterns_discovered: new.len(),
        patterns_recognised: known.len(),
        seconds,
        throughput_per_sec: answers.len() as f64 / seconds.max(1e-9),
        avg_latency_ms: latencies.iter().sum::<Duration>().as_secs_f64() * 1e3 / latencies.len() as f64,
        p50_latency_ms: quantile(&latencies, 0.5),
        p99_latency_ms: quantile(&latencies, 0.99),
    })
}

pub fn run(options: Options) -> Outcome {
    let report = runtime()?.block_on(measure(&options))?;
    options.output.format().print(describe(&report).trim_end(), &serde_json::to_value(&report)?)
}

fn describe(report: &Report) -> String {
    let rows = [
        ("workers", report.worker_count.to_string()),
        ("signals perceived", report.tasks_processed.to_string()),
        ("patterns discovered", report.patterns_discovered.to_string()),
        ("patterns recognised", report.patterns_recognised.to_string()),
        ("time", format!("{:.2} s", report.seconds)),
        ("signals per second", format!("{:.0}", report.throughput_per_sec)),
        ("latency, mean", format!("{:.2} ms", report.avg_latency_ms)),
        ("latency, p50", format!("{:.2} ms", report.p50_latency_ms)),
        ("latency, p99", format!("{:.2} ms", report.p99_latency_ms)),
    ];
    table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_depend_on_the_seed_alone() {
        assert_eq!(signals(9, 32, 1), signals(9, 32, 1));
        assert_ne!(signals(9, 32, 1), signals(9, 32, 2));
        assert_eq!(signals(9, 32, 1).len(), 9);
    }

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let sorted: Vec<Duration> = (1..=101).map(Duration::from_millis).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99), quantile(&sorted[..1], 0.99)), (51.0, 100.0, 1.0));
    }
}
