//! What runs in a pod: the file of the Sentinel, the beginning of the server, its probes, and its end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_api::names::{REDIS_PORT, SENTINEL_MASTER, SENTINEL_PORT};
use redis::RedisError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tracing::{info, warn};

use crate::ask::{Group, Info};
use crate::decide::{Opinion, Start, View, decide};
use crate::files;

/// How often the others are asked while the server waits.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the clients of a primary that leaves are held back at most.
const PAUSE: Duration = Duration::from_secs(10);
/// How often a primary that leaves pings its replicas: not before it has ended, which is sooner than they miss it.
const PING_PERIOD: Duration = Duration::from_secs(3_600);
/// How long replicas may take to have everything before another one is made primary.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How long a primary that leaves waits until another one is.
const HAND_OVER: Duration = Duration::from_secs(8);
/// How long a probe waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The address of the own server and Sentinel.
pub(crate) const LOCAL: &str = "127.0.0.1";
/// What a replica that has been in step may be elected with; the default of Redis.
const PRIORITY: &str = "100";

/// Why a member can't do what it should.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A file that can't be read or written.
    #[error("can't use {path}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A name that isn't a member's.
    #[error("{0:?} is no pod of this group")]
    Name(String),
    /// A server that isn't ready.
    #[error("not ready: {0}")]
    NotReady(&'static str),
    /// No answer.
    #[error("no answer on port {0}")]
    Hung(u16),
    /// A server or Sentinel that refused something.
    #[error("failed to {what}")]
    Redis {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        #[source]
        source: RedisError,
    },
    /// A program that can't be started.
    #[error("can't start redis-server")]
    Start(#[source] std::io::Error),
}

/// One member.
pub struct Member {
    /// All members.
    pub group: Group,
    /// The number of this one.
    pub me: usize,
    /// The volume.
    pub data: PathBuf,
    /// Where the operator's files are.
    pub config: PathBuf,
}

impl Member {
    /// The member in a pod: `NAME-2` is number 2, and its host is `NAME-2.SERVICE`. With a file of who vouches for the
    /// members, connections are encrypted.
    ///
    /// # Errors
    /// [`MemberError::Name`] and [`MemberError::File`].
    pub fn new(
        pod: &str,
        service: &str,
        members: usize,
        password: String,
        authority: Option<&Path>,
    ) -> Result<Self, MemberError> {
        let odd = || MemberError::Name(pod.to_owned());
        let (name, number) = pod.rsplit_once('-').ok_or_else(odd)?;
        let me = number.parse().ok().filter(|number| *number < members).ok_or_else(odd)?;
        let hosts = (0..members).map(|member| format!("{name}-{member}.{service}")).collect();
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|source| file_error(path, source));
        let authority = authority.map(read).transpose()?;
        let group = Group { hosts, password, authority };
        Ok(Self { group, me, data: "/data".into(), config: "/etc/redis".into() })
    }

    fn marker(&self) -> PathBuf {
        self.data.join("holds-data")
    }

    /// Stands from when the Sentinels know that this server may be elected until it begins anew.
    fn known_marker(&self) -> PathBuf {
        self.data.join("known-electable")
    }

    fn holds_data(&self) -> bool {
        self.marker().exists()
    }

    /// Puts this program where the pod's other containers find it, and writes the Sentinel's file.
    ///
    /// # Errors
    /// [`MemberError::File`].
    pub fn prepare(&self, programs: &Path) -> Result<(), MemberError> {
        self.place_program(programs)?;
        let path = self.data.join("sentinel.conf");
        let former = match std::fs::read_to_string(&path) {
            Ok(former) => former,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(file_error(&path, source)),
        };
        let template = self.read_config("sentinel.conf")?;
        write(&path, &files::sentinel_conf(&template, &self.group.hosts, self.me, &former, self.holds_data()))
    }

    /// Copies this program to where the pod's other containers find it.
    pub(crate) fn place_program(&self, programs: &Path) -> Result<(), MemberError> {
        let program = std::env::current_exe().map_err(|source| file_error(Path::new("/proc/self/exe"), source))?;
        let target = programs.join("hebb");
        std::fs::copy(&program, &target).map(drop).map_err(|source| file_error(&target, source))
    }

    pub(crate) fn read_config(&self, name: &str) -> Result<String, MemberError> {
        let path = self.config.join(name);
        std::fs::read_to_string(&path).map_err(|source| file_error(&path, source))
    }

    /// Waits until it is known what the server is to begin as, and writes its file.
    ///
    /// # Errors
    /// [`MemberError::File`].
    pub async fn settle(&self) -> Result<PathBuf, MemberError> {
        let template = self.read_config("redis.conf")?;
        match std::fs::remove_file(self.known_marker()) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(file_error(&self.known_marker(), source));
            }
            _ => {}
        }
        let settings = files::primary_settings(&self.read_config("sentinel.conf")?);
        let began = Instant::now();
        let mut told = None;
        loop {
            let (sentinels, servers) = self.group.look().await;
            let view = View { me: self.me, holds_data: self.holds_data(), sentinels, servers, waited: began.elapsed() };
            let start = decide(&view);
            if told != Some(start) {
                let because = if let Start::Wait(reason) = start { reason.as_str() } else { "decided" };
                info!(?start, because, sentinels = ?view.sentinels, servers = ?view.servers, "how the server begins");
                told = Some(start);
            }
            let primary = match start {
                Start::Primary => Some(self.me),
                Start::ReplicaOf { primary, .. } => Some(primary),
                Start::Wait(_) => None,
            };
            if let Some(primary) = primary
                && let Some(text) = files::redis_conf(&template, &self.group.hosts, self.me, start)
            {
                match self.introduce(primary, view.sentinels.get(self.me), &settings).await {
                    Ok(()) => {
                        let path = self.data.join("redis.conf");
                        write(&path, &text)?;
                        if start == Start::Primary {
                            write(&self.marker(), "")?;
                        }
                        return Ok(path);
                    }
                    Err(error) => warn!(%error, "the Sentinel doesn't take the primary; it is told again"),
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells the own Sentinel of the primary, if it has never heard of one.
    async fn introduce(
        &self,
        primary: usize,
        own: Option<&Opinion>,
        settings: &[(String, String)],
    ) -> Result<(), RedisError> {
        if own != Some(&Opinion::Ignorant) {
            return Ok(());
        }
        let host = self.group.hosts.get(primary).map(String::as_str).unwrap_or_default();
        let mut monitor = redis::cmd("SENTINEL");
        monitor.arg("MONITOR").arg(SENTINEL_MASTER).arg(host).arg(REDIS_PORT).arg(self.group.hosts.len() / 2 + 1);
        self.group.send(LOCAL, SENTINEL_PORT, &monitor).await?;
        let mut set = redis::cmd("SENTINEL");
        set.arg("SET").arg(SENTINEL_MASTER);
        for (option, value) in settings {
            set.arg(option).arg(value);
        }
        self.group.send(LOCAL, SENTINEL_PORT, &set).await.map(drop)
    }

    /// Becomes the server of this file; returns only where that fails.
    pub fn begin(&self, file: &Path) -> MemberError {
        MemberError::Start(Command::new("redis-server").arg(file).exec())
    }

    /// Whether the server is of use: as primary, or as a replica in step with one. Such a replica may be elected from then,
    /// and is of use once the Sentinels know so: a primary that died before would have no successor.
    ///
    /// # Errors
    /// [`MemberError::NotReady`], or what the server said.
    pub async fn ready(&self) -> Result<(), MemberError> {
        let info = self.info().await?;
        let server = info.server();
        if server.loading {
            return Err(MemberError::NotReady("reads its file"));
        }
        if !server.primary && !info.in_step() {
            return Err(MemberError::NotReady("a replica that isn't in step with its primary"));
        }
        if info.field("slave_priority") == "0" || !self.holds_data() {
            write(&self.marker(), "")?;
            let mut raise = redis::cmd("CONFIG");
            raise.arg("SET").arg("replica-priority").arg(PRIORITY);
            self.send(REDIS_PORT, &raise, "make the replica electable").await?;
        }
        if !server.primary && !self.known_marker().exists() {
            let host = self.group.hosts.get(self.me).map(String::as_str).unwrap_or_default();
            if !self.group.know_electable(host).await {
                return Err(MemberError::NotReady("a replica that the Sentinels don't know to be electable yet"));
            }
            write(&self.known_marker(), "")?;
        }
        Ok(())
    }

    /// Hands a primary's role over before its pod ends: clients are held back, the replicas catch up, and the Sentinels make
    /// one of them primary. Nothing is lost when it fails: the Sentinels notice the end soon.
    ///
    /// # Errors
    /// What the server or the Sentinels said.
    pub async fn leave(&self) -> Result<(), MemberError> {
        let info = self.info().await?;
        if !info.server().primary || info.field("connected_slaves") == "0" {
            return Ok(());
        }
        // A ping is a part of what is replicated: with one that the next primary hasn't seen, the others would have to copy
        // everything from it, and writes would wait for that.
        let mut quiet = redis::cmd("CONFIG");
        quiet.arg("SET").arg("repl-ping-replica-period").arg(PING_PERIOD.as_secs());
        self.send(REDIS_PORT, &quiet, "stop its pings").await?;
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX)).arg("WRITE");
        self.send(REDIS_PORT, &pause, "hold clients back").await?;
        let began = Instant::now();
        while !all_caught_up(&self.info().await?) && began.elapsed() < CATCH_UP {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut failover = redis::cmd("SENTINEL");
        failover.arg("FAILOVER").arg(SENTINEL_MASTER);
        // The own Sentinel ends with the pod: another one is asked first.
        let (own, others): (Vec<_>, Vec<_>) =
            self.group.hosts.iter().enumerate().partition(|(member, _)| *member == self.me);
        let mut asked = None;
        for (_, host) in others.into_iter().chain(own) {
            match self.group.send(host, SENTINEL_PORT, &failover).await {
                Ok(_) => {
                    asked = None;
                    break;
                }
                Err(source) => asked = Some(MemberError::Redis { what: "hand over", source }),
            }
        }
        if let Some(error) = asked {
            return Err(error);
        }
        let began = Instant::now();
        // Sentinels make a replica of the former primary only after eight seconds; once they name another it may end.
        while began.elapsed() < HAND_OVER && self.group.newest().await.is_none_or(|newest| newest.member == self.me) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn info(&self) -> Result<Info, MemberError> {
        info_of(&self.group).await
    }

    async fn send(&self, port: i32, command: &redis::Cmd, what: &'static str) -> Result<redis::Value, MemberError> {
        self.group.send(LOCAL, port, command).await.map_err(|source| MemberError::Redis { what, source })
    }
}

/// What the own server says of itself.
pub(crate) async fn info_of(group: &Group) -> Result<Info, MemberError> {
    let asked = group.send(LOCAL, REDIS_PORT, &redis::cmd("INFO")).await;
    let answer = asked.map_err(|source| MemberError::Redis { what: "ask the server", source })?;
    let odd = |_| MemberError::NotReady("an answer that makes no sense");
    redis::from_redis_value::<String>(answer).map(|text| Info::parse(&text)).map_err(odd)
}

/// Whether every replica has what the primary has written.
fn all_caught_up(info: &Info) -> bool {
    let offset = info.field("master_repl_offset");
    let count: usize = info.field("connected_slaves").parse().unwrap_or(0);
    (0..count)
        .all(|place| info.field(&format!("slave{place}")).split(',').any(|part| part == format!("offset={offset}")))
}

/// How a port of this pod is spoken to where connections are encrypted.
pub struct Sealed {
    /// The file of who vouches for the server.
    pub authority: PathBuf,
    /// A name that is on its certificate.
    pub name: String,
}

/// Whether somebody answers on a port of this pod. A closed port is good where the server may still be waiting to begin.
///
/// # Errors
/// [`MemberError::Hung`], or [`MemberError::Name`] for a name that can't be on a certificate.
pub fn answers(port: u16, or_closed: bool, sealed: Option<&Sealed>) -> Result<(), MemberError> {
    let hung = || MemberError::Hung(port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = match TcpStream::connect_timeout(&address, ANSWER) {
        Ok(stream) => stream,
        Err(error) if or_closed && error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
        Err(_) => return Err(hung()),
    };
    let limited = stream.set_read_timeout(Some(ANSWER)).and_then(|()| stream.set_write_timeout(Some(ANSWER)));
    limited.map_err(|_| hung())?;
    let answered = match sealed {
        None => ping(&mut stream),
        Some(sealed) => ping(&mut rustls::Stream::new(&mut handshake(sealed)?, &mut stream)),
    };
    match answered {
        // Any answer will do: that a password is wanted is one, and so is a certificate that isn't valid any more, which
        // no restart would mend.
        Err(error) if error.kind() != ErrorKind::InvalidData => Err(hung()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn ping(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    stream.read_exact(&mut [0])
}

fn handshake(sealed: &Sealed) -> Result<rustls::ClientConnection, MemberError> {
    // Without the file nobody is trusted, and a server that isn't has answered all the same.
    let certificates = CertificateDer::pem_file_iter(&sealed.authority).into_iter().flatten();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let odd = |_| MemberError::Name(sealed.name.clone());
    let name = ServerName::try_from(sealed.name.clone()).map_err(odd)?;
    rustls::ClientConnection::new(Arc::new(config), name).map_err(|_| MemberError::Name(sealed.name.clone()))
}

pub(crate) fn file_error(path: &Path, source: std::io::Error) -> MemberError {
    MemberError::File { path: path.display().to_string(), source }
}

/// Writes a file that only this user may read, whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), MemberError> {
    let draft = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&draft, path)).map_err(|source| file_error(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_name_says_which_member_it_is() {
        let member = Member::new("demo-redis-2", "demo-redis.ns.svc.c", 3, "p".to_owned(), None).unwrap();
        assert_eq!((member.me, member.group.hosts[0].as_str()), (2, "demo-redis-0.demo-redis.ns.svc.c"));
        for odd in ["demo", "demo-redis-3", "demo-redis-x"] {
            assert!(Member::new(odd, "s", 3, String::new(), None).is_err(), "{odd}");
        }
    }

    #[test]
    fn replicas_have_caught_up_when_all_offsets_are_the_primarys() {
        let info = |second: &str| {
            Info::parse(&format!(
                "connected_slaves:2\r\nmaster_repl_offset:70\r\nslave0:ip=a,port=6379,state=online,offset=70,lag=0\r\nslave1:ip=b,port=6379,state=online,offset={second},lag=1\r\n"
            ))
        };
        assert!(all_caught_up(&info("70")));
        assert!(!all_caught_up(&info("7")));
    }
}
