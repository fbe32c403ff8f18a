//! The `hebb` binary: one subcommand a file.

// `println!` panics where its reader has gone: `output::print` doesn't.
#![deny(clippy::print_stdout)]

mod access;
mod alerts;
mod ask;
mod backup;
mod benchmark;
mod cli;
mod completion;
mod config;
mod demo;
mod evaluate;
mod history;
mod kubernetes;
mod node;
mod operator;
mod output;
mod redis;
mod redis_member;
mod reset;
mod restore;
mod simulate;
mod start;
mod status;
mod stream;
mod top;

use std::process::ExitCode;

/// Faster than musl's under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Err(error) = hebb_telemetry::log_to_stderr(arguments.level()) {
        eprintln!("hebb: {error}");
        return ExitCode::from(2);
    }
    match cli::run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hebb: {}", output::with_causes(error.as_ref()));
            error.downcast_ref::<node::Stopped>().map_or(ExitCode::FAILURE, |stopped| ExitCode::from(stopped.code()))
        }
    }
}
