//! `make faults` and `make replay`: does harm to the operator at every write, and judges what becomes of it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use hebb_chaos::Error;
use hebb_chaos::run::World;
use hebb_chaos::suite::{Replay, Selection, replay, run};
use hebb_chaos::workload;

/// Runs the release binary of the operator against a real API server, through a proxy that does harm.
#[derive(Parser)]
struct Options {
    /// The binary
    #[arg(long)]
    hebb: PathBuf,
    /// Workloads [default: all]
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Every which write is a point of harm
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Plans at a time
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    /// Seconds of silence at the end of each plan
    #[arg(long, default_value_t = 3)]
    silence: u64,
    /// Only crashes
    #[arg(long)]
    only_crashes: bool,
    /// Plant no bugs
    #[arg(long)]
    no_mutants: bool,
    /// Run the plan of this file again, and nothing else
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where the report and the files of red plans go
    #[arg(long, default_value = "target/faults")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tokio::select! {
        done = act(Options::parse()) => done,
        // The API server ends with the values that are dropped here, which an end by the signal itself would leave running.
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn act(options: Options) -> Result<(), Error> {
    std::fs::create_dir_all(&options.out)?;
    let world = Arc::new(World::start(options.hebb.canonicalize()?).await?);
    if let Some(file) = &options.replay {
        let saved: Replay = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let again = replay(&world, &saved.plan).await?;
        for write in again.writes.iter().filter(|write| !write.is_lease()) {
            let status = write.status.map_or("-".to_owned(), |status| status.to_string());
            println!("{:>4} {:>7} ms {:<6} {:<50} {status}", write.number, write.at, write.verb, write.object);
        }
        println!("{}", serde_json::to_string_pretty(&again.findings)?);
        return if again.findings.is_empty() { Ok(()) } else { Err("the plan is red".into()) };
    }
    let all = || workload::ALL.map(str::to_owned).to_vec();
    let selection = Selection {
        workloads: if options.workloads.is_empty() { all() } else { options.workloads },
        stride: options.stride,
        parallel: options.parallel,
        silence: options.silence,
        only_crashes: options.only_crashes,
        mutants: !options.no_mutants,
    };
    let report = run(world, &selection, &options.out).await?;
    println!(
        "{} plans, {} red; {} of {} planted bugs seen; {:.0} s",
        report.plans, report.red, report.mutants_caught, report.mutants, report.seconds
    );
    match report.red == 0 && report.mutants == report.mutants_caught {
        true => Ok(()),
        false => Err("see the report".into()),
    }
}
