//! What runs in a pod of a Redis Cluster: the server's beginning and end, its readiness, and the tending beside it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hebb_api::names::REDIS_PORT;
use redis::Cmd;
use tracing::{info, warn};

use super::decide::{Begin, Step, View, begin, tend};
use super::hear::{Link, Said};
use super::nodes::parse;
use crate::ask::Group;
use crate::files::cluster_conf;
use crate::member::{LOCAL, LOOK_EVERY, Member, MemberError, file_error, info_of, write};

/// How often the members are asked while there is something to do.
const BUSY: Duration = Duration::from_secs(1);
/// How often they are asked while all is well.
const AT_REST: Duration = Duration::from_secs(5);
/// How long a primary that leaves waits until another one is; Redis gives a handover up after five seconds.
const HAND_OVER: Duration = Duration::from_secs(6);

/// One member, and where it is.
pub struct Keeper {
    member: Member,
    ip: IpAddr,
}

impl Keeper {
    /// The member in a pod of this address.
    pub fn new(member: Member, ip: IpAddr) -> Self {
        Self { member, ip }
    }

    fn group(&self) -> &Group {
        &self.member.group
    }

    fn host(&self) -> &str {
        self.group().hosts.get(self.member.me).map(String::as_str).unwrap_or_default()
    }

    /// The file that names whose full copy the volume holds.
    fn copy_file(&self) -> PathBuf {
        self.member.data.join("copy-of")
    }

    /// Puts this program where the pod's other containers find it.
    ///
    /// # Errors
    /// [`MemberError::File`].
    pub fn prepare(&self, programs: &Path) -> Result<(), MemberError> {
        self.member.place_program(programs)
    }

    /// Waits until the server may begin, and writes its file.
    ///
    /// # Errors
    /// [`MemberError::File`].
    pub async fn settle(&self) -> Result<PathBuf, MemberError> {
        let template = self.member.read_config("redis.conf")?;
        let table = read(&self.member.data.join("nodes.conf"))?;
        let own = parse(&table).into_iter().find(|node| node.is_self);
        let began = Instant::now();
        let mut told = false;
        loop {
            let members = self.group().hear().await;
            if begin(own.as_ref().map(|node| node.id.as_str()), &members, began.elapsed()) == Begin::Now {
                break;
            }
            if !std::mem::replace(&mut told, true) {
                info!("this was a primary, and its replica has everything: the shards elect it first");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        info!(node = ?own, "the server begins");
        let path = self.member.data.join("redis.conf");
        write(&path, &cluster_conf(&template, self.host(), self.ip))?;
        Ok(path)
    }

    /// Becomes the server of this file; returns only where that fails.
    pub fn begin(&self, file: &Path) -> MemberError {
        self.member.begin(file)
    }

    /// Keeps the server one of the members, for ever.
    ///
    /// # Errors
    /// [`MemberError::File`].
    pub async fn tend(&self) -> Result<(), MemberError> {
        let mut seen_primary_at = Instant::now();
        let mut copy_of = Some(read(&self.copy_file())?).filter(|id| !id.is_empty());
        loop {
            let mut members = self.group().hear().await;
            // The own name may still stand for the former address.
            let own = self.group().hear_one(self.host(), Some(IpAddr::from([127, 0, 0, 1]))).await;
            let own = own.map(|said| Said { ip: Some(self.ip), ..said });
            let (primary, link) = match &own {
                Some(said) => (said.own().and_then(|own| own.replica_of.clone()), said.link),
                None => (None, Link::Never),
            };
            if primary.is_some() && link == Link::Up && copy_of != primary {
                write(&self.copy_file(), primary.as_deref().unwrap_or_default())?;
                copy_of.clone_from(&primary);
            }
            let answers = |id: &String| members.iter().flatten().filter_map(Said::own).any(|own| own.id == *id);
            if own.is_none() || primary.as_ref().is_none_or(answers) {
                seen_primary_at = Instant::now();
            }
            let all_answer = members.iter().all(Option::is_some);
            if let Some(place) = members.get_mut(self.member.me) {
                *place = own;
            }
            let view = View {
                me: self.member.me,
                hosts: self.group().hosts.clone(),
                members,
                copy_of: copy_of.clone(),
                primary_away_for: seen_primary_at.elapsed(),
            };
            let steps = tend(&view);
            for step in &steps {
                info!(?step, "tending");
                if *step == Step::Stand {
                    // The next attempt waits as long again.
                    seen_primary_at = Instant::now();
                }
                if let Err(error) = self.group().send(LOCAL, REDIS_PORT, &command(step)).await {
                    warn!(?step, %error, "the server refuses; it is asked again");
                }
            }
            tokio::time::sleep(if steps.is_empty() && all_answer { AT_REST } else { BUSY }).await;
        }
    }

    /// Whether the server is of use: part of a working Cluster, with slots, or as a replica in step with its primary.
    ///
    /// # Errors
    /// [`MemberError::NotReady`].
    pub async fn ready(&self) -> Result<(), MemberError> {
        let own = self.group().hear_one(self.host(), Some(IpAddr::from([127, 0, 0, 1]))).await;
        let said = own.ok_or(MemberError::NotReady("doesn't answer, or reads its file"))?;
        let line = said.own().ok_or(MemberError::NotReady("a table without its own line"))?;
        match () {
            () if !said.working => Err(MemberError::NotReady("not part of a working Redis Cluster")),
            () if line.replica_of.is_some() && said.link != Link::Up => {
                Err(MemberError::NotReady("a replica that isn't in step with its primary"))
            }
            () if line.replica_of.is_none() && line.slots.is_empty() => {
                Err(MemberError::NotReady("a server that has no place in a shard yet"))
            }
            () => Ok(()),
        }
    }

    /// Hands a primary's role over before its pod ends: Redis holds the clients back, the replica catches up and is elected.
    /// Nothing is lost when it fails: the others notice the end soon.
    ///
    /// # Errors
    /// What a server said.
    pub async fn leave(&self) -> Result<(), MemberError> {
        let info = info_of(self.group()).await?;
        let count: usize = info.field("connected_slaves").parse().unwrap_or(0);
        let replicas = (0..count).filter_map(|place| replica(info.field(&format!("slave{place}"))));
        let Some((_, ip)) = replicas.max().filter(|_| info.server().primary) else { return Ok(()) };
        let handing_over = command_of(&["CLUSTER", "FAILOVER"]);
        let asked = self.group().send(&ip, REDIS_PORT, &handing_over).await;
        asked.map_err(|source| MemberError::Redis { what: "hand over", source })?;
        let began = Instant::now();
        while began.elapsed() < HAND_OVER {
            let info = info_of(self.group()).await?;
            if !info.server().primary || info.field("connected_slaves") == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// How much a replica has, and where it is, by its line in a primary's INFO.
fn replica(line: &str) -> Option<(u64, String)> {
    let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let online = field("state") == Some("online");
    Some((field("offset")?.parse().ok()?, field("ip")?.to_owned())).filter(|_| online)
}

fn command(step: &Step) -> Cmd {
    match step {
        Step::Meet(ip) => command_of(&["CLUSTER", "MEET", &ip.to_string(), &REDIS_PORT.to_string()]),
        Step::Forget(id) => command_of(&["CLUSTER", "FORGET", id]),
        Step::Found(first, last) => command_of(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]),
        Step::Follow(id) => command_of(&["CLUSTER", "REPLICATE", id]),
        Step::Stand => command_of(&["CLUSTER", "FAILOVER", "FORCE"]),
    }
}

fn command_of(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(words);
    command
}

/// A file's text; nothing where there is none.
fn read(path: &Path) -> Result<String, MemberError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(file_error(path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replica_that_is_online_takes_over() {
        let line = |state: &str| format!("ip=10.0.0.2,port=6379,state={state},offset=70,lag=0");
        assert_eq!(replica(&line("online")), Some((70, "10.0.0.2".to_owned())));
        assert_eq!(replica(&line("wait_bgsave")), None);
    }
}
