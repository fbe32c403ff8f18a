//! `hebb redis-member`: what runs in the pods of a Redis with Sentinels that the operator makes. Not for users.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hebb_redis::{Member, answers};

use crate::cli::Outcome;
use crate::node::wait_for_signal;

#[derive(Subcommand)]
pub enum Command {
    /// Put this program and the Sentinel's file in place
    Prepare {
        #[command(flatten)]
        options: Options,
        /// Where the other containers find this program
        #[arg(long)]
        programs: PathBuf,
    },
    /// Find out what the server begins as, and begin it
    Serve(Options),
    /// Succeed when the server is of use
    Ready(Options),
    /// Hand over the role of a primary
    Leave(Options),
    /// Succeed when somebody answers on a port
    Ping {
        #[arg(long)]
        port: u16,
        /// Succeed also when nobody listens
        #[arg(long)]
        or_closed: bool,
    },
}

#[derive(Args)]
pub struct Options {
    /// Name of the pod
    #[arg(long, env = "POD_NAME")]
    pod: String,
    /// Full name of the pods' Service
    #[arg(long, env = "REDIS_SERVICE")]
    service: String,
    /// Number of pods
    #[arg(long, env = "REDIS_MEMBERS")]
    members: usize,
    /// Password of servers and Sentinels
    #[arg(long, env = "REDIS_PASSWORD", hide_env_values = true)]
    password: String,
}

impl Options {
    fn member(self) -> Result<Member, hebb_redis::MemberError> {
        Member::new(&self.pod, &self.service, self.members, self.password)
    }
}

pub fn run(command: Command) -> Outcome {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Command::Prepare { options, programs } => options.member()?.prepare(&programs)?,
        Command::Serve(options) => {
            let member = options.member()?;
            let file = runtime()?.block_on(async {
                tokio::select! {
                    file = member.settle() => file.map(Some),
                    _ = wait_for_signal() => Ok(None),
                }
            })?;
            if let Some(file) = file {
                return Err(member.begin(&file).into());
            }
        }
        Command::Ready(options) => runtime()?.block_on(options.member()?.ready())?,
        Command::Leave(options) => runtime()?.block_on(options.member()?.leave())?,
        Command::Ping { port, or_closed } => answers(port, or_closed)?,
    }
    Ok(())
}
