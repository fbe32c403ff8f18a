//! Asks the members of a group: their Sentinels who is primary, their servers what they are.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use hebb_api::names::{REDIS_PORT, SENTINEL_MASTER, SENTINEL_PORT};
use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisFuture, TlsCertificates, Value,
};
use tokio::time::timeout;

use crate::decide::{Opinion, Server};

/// How long a member may take to be connected to and to answer.
const DEADLINE: Duration = Duration::from_millis(1_000);

/// The members of one group, and the password of their servers and Sentinels.
#[derive(Clone, Default)]
pub struct Group {
    /// The members' host names, by their numbers.
    pub hosts: Vec<String>,
    /// The password of all.
    pub password: String,
    /// Who vouches for the certificate that all members show, in PEM; nothing where connections are in the clear.
    pub authority: Option<String>,
}

/// Finds every name at one address.
struct At(IpAddr);

impl AsyncDNSResolver for At {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let found: Box<dyn Iterator<Item = SocketAddr> + Send> =
            Box::new(std::iter::once(SocketAddr::new(self.0, port)));
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// The newest election that a group's Sentinels know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest {
    /// Its number.
    pub epoch: u64,
    /// Who won.
    pub member: usize,
}

impl Group {
    /// Sends a command to a host, or to an address of a member.
    pub(crate) async fn send(&self, host: &str, port: i32, command: &Cmd) -> Result<Value, RedisError> {
        let address: Option<IpAddr> = host.parse().ok();
        // All members show one certificate, so any member's name is on it.
        let name = if address.is_some() { self.any_name() } else { host };
        let asked = async {
            let mut connection = self.connect(name, address, port).await?;
            command.query_async(&mut connection).await
        };
        let late = || RedisError::from((ErrorKind::Io, "no answer in time"));
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// A name that is on the certificate.
    pub fn any_name(&self) -> &str {
        self.hosts.first().map(String::as_str).unwrap_or_default()
    }

    /// Opens a connection to a host, at an address where that is known; who can't show the host's certificate is refused.
    pub(crate) async fn connect(
        &self,
        host: &str,
        at: Option<IpAddr>,
        port: i32,
    ) -> Result<MultiplexedConnection, RedisError> {
        let port = u16::try_from(port).unwrap_or_default();
        let host = host.to_owned();
        let settings = RedisConnectionInfo::default().set_password(&self.password);
        let client = match &self.authority {
            None => {
                let info = ConnectionAddr::Tcp(host, port).into_connection_info()?;
                Client::open(info.set_redis_settings(settings))?
            }
            Some(authority) => {
                let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                let certificates =
                    TlsCertificates { client_tls: None, root_cert: Some(authority.clone().into_bytes()) };
                Client::build_with_tls(address.into_connection_info()?.set_redis_settings(settings), certificates)?
            }
        };
        let config = AsyncConnectionConfig::new();
        let config = if let Some(address) = at { config.set_dns_resolver(At(address)) } else { config };
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// What all Sentinels and all servers say.
    pub async fn look(&self) -> (Vec<Opinion>, Vec<Option<Server>>) {
        let sentinels = join_all(self.hosts.iter().map(|host| self.opinion(host)));
        let servers = join_all(self.hosts.iter().map(|host| self.server(host)));
        futures::future::join(sentinels, servers).await
    }

    /// The newest election that any Sentinel knows of; nothing while none answers.
    pub async fn newest(&self) -> Option<Newest> {
        let opinions = join_all(self.hosts.iter().map(|host| self.opinion(host))).await;
        let elected = opinions.into_iter().filter_map(|opinion| match opinion {
            Opinion::Elected { epoch, member } => Some(Newest { epoch, member }),
            Opinion::Silent | Opinion::Ignorant => None,
        });
        elected.max()
    }

    /// What a host's Sentinel says.
    pub(crate) async fn opinion(&self, host: &str) -> Opinion {
        let sentinel = |question: &str| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(question).arg(SENTINEL_MASTER);
            command
        };
        let fields = match self.send(host, SENTINEL_PORT, &sentinel("MASTER")).await {
            Ok(answer) => redis::from_redis_value::<HashMap<String, String>>(answer).unwrap_or_default(),
            Err(error) if error.to_string().contains("No such master") => return Opinion::Ignorant,
            Err(_) => return Opinion::Silent,
        };
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        // The Sentinel that leads a failover counts the new election while MASTER still has the old address.
        let named = self.send(host, SENTINEL_PORT, &sentinel("GET-MASTER-ADDR-BY-NAME")).await;
        let named = named.ok().and_then(|answer| redis::from_redis_value::<(String, String)>(answer).ok());
        let member = named.and_then(|(named, _)| self.hosts.iter().position(|host| *host == named));
        match (epoch, member) {
            (Some(epoch), Some(member)) => Opinion::Elected { epoch, member },
            _ => Opinion::Silent,
        }
    }

    /// Whether the Sentinels know that a host's replica may be elected; see [`know_electable`]. They look at it every ten
    /// seconds.
    pub(crate) async fn know_electable(&self, host: &str) -> bool {
        let mut replicas = redis::cmd("SENTINEL");
        replicas.arg("REPLICAS").arg(SENTINEL_MASTER);
        let asked = join_all(self.hosts.iter().map(|sentinel| self.send(sentinel, SENTINEL_PORT, &replicas))).await;
        let answers = asked.into_iter().flatten().map(|answer| redis::from_redis_value(answer).unwrap_or_default());
        know_electable(&answers.collect::<Vec<_>>(), self.hosts.len(), host)
    }

    /// What a host's server says; nothing while it doesn't answer.
    pub(crate) async fn server(&self, host: &str) -> Option<Server> {
        let answer = self.send(host, REDIS_PORT, &redis::cmd("INFO")).await.ok()?;
        let text: String = redis::from_redis_value(answer).ok()?;
        Some(Info::parse(&text).server())
    }
}

/// A replica as a Sentinel lists it.
type Listed = HashMap<String, String>;

/// Whether every Sentinel that answered lists a host as electable, and more than half did: whoever leads an election is then
/// one that knows.
fn know_electable(answers: &[Vec<Listed>], sentinels: usize, host: &str) -> bool {
    let is_electable = |replica: &Listed| {
        replica.get("ip").is_some_and(|ip| ip == host)
            && replica.get("slave-priority").is_some_and(|priority| priority != "0")
    };
    sentinels < 2 * answers.len() && answers.iter().all(|known| known.iter().any(is_electable))
}

/// The answer of INFO.
pub(crate) struct Info(HashMap<String, String>);

impl Info {
    pub(crate) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn server(&self) -> Server {
        let primary = self.field("role") == "master";
        let keys = self.0.iter().filter(|(name, _)| name.starts_with("db")).filter_map(|(_, value)| {
            let count = value.strip_prefix("keys=")?.split(',').next()?;
            count.parse::<u64>().ok()
        });
        Server {
            primary,
            promotable: !primary && self.field("slave_priority") != "0",
            loading: self.field("loading") == "1",
            keys: keys.sum(),
        }
    }

    /// Whether the server is a replica that has everything up to now.
    pub(crate) fn in_step(&self) -> bool {
        self.field("master_link_status") == "up" && self.field("master_sync_in_progress") == "0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_electable_when_all_sentinels_that_answer_and_most_of_them_say_so() {
        let list = |host: &str, priority: &str| {
            vec![Listed::from([("ip".to_owned(), host.to_owned()), ("slave-priority".to_owned(), priority.to_owned())])]
        };
        let (known, unknown, other) = (list("r-1", "100"), list("r-1", "0"), list("r-2", "100"));
        assert!(know_electable(&[known.clone(), known.clone(), known.clone()], 3, "r-1"));
        assert!(know_electable(&[known.clone(), known.clone()], 3, "r-1"), "one is away");
        assert!(!know_electable(std::slice::from_ref(&known), 3, "r-1"), "nobody can be elected by one of three");
        assert!(!know_electable(&[], 3, "r-1"));
        assert!(!know_electable(&[known.clone(), known.clone(), unknown], 3, "r-1"), "the third may lead the election");
        assert!(!know_electable(&[known.clone(), known, other], 3, "r-1"));
    }

    #[test]
    fn what_a_server_is_stands_in_its_info() {
        let replica = Info::parse(
            "# Replication\r\nrole:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\nslave_priority:0\r\nloading:0\r\n# Keyspace\r\ndb0:keys=12,expires=3\r\n",
        );
        assert_eq!(replica.server(), Server { keys: 12, ..Server::default() });
        assert!(replica.in_step());
        let primary = Info::parse("role:master\r\nloading:1\r\n").server();
        assert_eq!(primary, Server { primary: true, loading: true, ..Server::default() });
    }
}
