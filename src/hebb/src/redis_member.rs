//! `hebb redis-member`: what runs in the pods of a Redis with Sentinels, or of a Redis Cluster, that the operator makes. Not
//! for users.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hebb_redis::sharded::Keeper;
use hebb_redis::{Member, MemberError, Sealed, answers};

use crate::cli::Outcome;
use crate::node::wait_for_signal;

#[derive(Subcommand)]
pub enum Command {
    /// Put this program in place, and the Sentinel's file
    Prepare {
        #[command(flatten)]
        options: Options,
        /// Where the other containers find this program
        #[arg(long)]
        programs: PathBuf,
    },
    /// Find out what the server begins as, and begin it
    Serve(Options),
    /// Keep the server a member of its Redis Cluster
    Tend(Options),
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
        /// PEM file of who vouches for the one who answers; given, the connection is encrypted
        #[arg(long, requires = "tls_name")]
        tls_ca: Option<PathBuf>,
        /// A name on the certificate of the one who answers
        #[arg(long, requires = "tls_ca")]
        tls_name: Option<String>,
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
    /// PEM file of who vouches for servers and Sentinels; given, connections are encrypted
    #[arg(long, env = "REDIS_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// Address of the pod; given, the servers are a Redis Cluster
    #[arg(long, env = "REDIS_CLUSTER_IP")]
    cluster_ip: Option<IpAddr>,
}

/// What the pod is a member of.
enum Kind {
    Sentinel(Member),
    Cluster(Keeper),
}

impl Options {
    fn member(self) -> Result<Kind, MemberError> {
        let member = Member::new(&self.pod, &self.service, self.members, self.password, self.tls_ca.as_deref())?;
        Ok(match self.cluster_ip {
            Some(ip) => Kind::Cluster(Keeper::new(member, ip)),
            None => Kind::Sentinel(member),
        })
    }
}

impl Kind {
    fn prepare(&self, programs: &Path) -> Result<(), MemberError> {
        match self {
            Kind::Sentinel(member) => member.prepare(programs),
            Kind::Cluster(keeper) => keeper.prepare(programs),
        }
    }

    async fn settle(&self) -> Result<PathBuf, MemberError> {
        match self {
            Kind::Sentinel(member) => member.settle().await,
            Kind::Cluster(keeper) => keeper.settle().await,
        }
    }

    fn begin(&self, file: &Path) -> MemberError {
        match self {
            Kind::Sentinel(member) => member.begin(file),
            Kind::Cluster(keeper) => keeper.begin(file),
        }
    }

    /// The Sentinels tend theirs by themselves.
    async fn tend(&self) -> Result<(), MemberError> {
        match self {
            Kind::Sentinel(_) => Ok(()),
            Kind::Cluster(keeper) => keeper.tend().await,
        }
    }

    async fn ready(&self) -> Result<(), MemberError> {
        match self {
            Kind::Sentinel(member) => member.ready().await,
            Kind::Cluster(keeper) => keeper.ready().await,
        }
    }

    async fn leave(&self) -> Result<(), MemberError> {
        match self {
            Kind::Sentinel(member) => member.leave().await,
            Kind::Cluster(keeper) => keeper.leave().await,
        }
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
        Command::Tend(options) => {
            let member = options.member()?;
            runtime()?.block_on(async {
                tokio::select! {
                    ended = member.tend() => ended,
                    _ = wait_for_signal() => Ok(()),
                }
            })?;
        }
        Command::Ready(options) => runtime()?.block_on(options.member()?.ready())?,
        Command::Leave(options) => runtime()?.block_on(options.member()?.leave())?,
        Command::Ping { port, or_closed, tls_ca, tls_name } => {
            let sealed = tls_ca.zip(tls_name).map(|(authority, name)| Sealed { authority, name });
            answers(port, or_closed, sealed.as_ref())?;
        }
    }
    Ok(())
}
