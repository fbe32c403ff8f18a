//! Where a cluster's Redis is, how it is laid out, and how to enter it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use redis::{ClientTlsConfig, TlsCertificates};

use crate::{Durability, LogError};

/// The port of Redis.
const PORT: u16 = 6379;
/// The port of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// What a primary is called by its Sentinels where nobody says otherwise.
pub const DEFAULT_SERVICE: &str = "hebb";

/// A host's name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// An address from its parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Parses `host`, `host:port` or `[address]:port`.
    fn parse(text: &str, default_port: u16) -> Result<Self, LogError> {
        let odd = || LogError::Invalid(format!("{text:?} isn't host:port"));
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default_port), str::parse).map_err(|_| odd())?;
        if host.is_empty() || port == 0 || host.chars().any(|c| c.is_whitespace() || matches!(c, '/' | '@')) {
            return Err(odd());
        }
        Ok(Self::new(host, port))
    }

    fn list(text: &str, default_port: u16) -> Result<Vec<Self>, LogError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let addresses = parts.map(|part| Self::parse(part, default_port)).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(LogError::Invalid("no address was given".to_owned()));
        }
        Ok(addresses)
    }
}

impl FromStr for Address {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        Self::parse(text, PORT)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the Redis servers of a cluster hang together, and so who knows which of them takes writes.
#[derive(Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, which is always primary.
    Standalone(Address),
    /// One primary with replicas; Sentinels elect another when it is lost.
    Sentinel {
        /// The Sentinels; one that answers is enough, and of several the best informed is believed.
        sentinels: Vec<Address>,
        /// What the Sentinels call the primary.
        service: String,
        /// The Sentinels' own password, where they have one; never printed.
        password: Option<String>,
    },
    /// Several primaries that share the slots, each with replicas that elect another when it is lost.
    Cluster {
        /// Some of the nodes; they know the others.
        seeds: Vec<Address>,
    },
}

impl Topology {
    /// Sentinels from a list of `host:port`.
    ///
    /// # Errors
    /// [`LogError::Invalid`].
    pub fn sentinels(list: &str, service: &str, password: Option<String>) -> Result<Self, LogError> {
        if service.is_empty() {
            return Err(LogError::Invalid("the Sentinels' name of the primary is empty".to_owned()));
        }
        Ok(Self::Sentinel { sentinels: Address::list(list, SENTINEL_PORT)?, service: service.to_owned(), password })
    }

    /// A Cluster from a list of `host:port`.
    ///
    /// # Errors
    /// [`LogError::Invalid`].
    pub fn seeds(list: &str) -> Result<Self, LogError> {
        Ok(Self::Cluster { seeds: Address::list(list, PORT)? })
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone(address) => f.debug_tuple("Standalone").field(address).finish(),
            Self::Sentinel { sentinels, service, password } => f
                .debug_struct("Sentinel")
                .field("sentinels", sentinels)
                .field("service", service)
                .field("password", &password.as_ref().map(|_| "set"))
                .finish(),
            Self::Cluster { seeds } => f.debug_struct("Cluster").field("seeds", seeds).finish(),
        }
    }
}

/// Encrypted connections, to the Sentinels too.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who may vouch for a server, in PEM; those that the machine trusts when absent.
    pub authority: Option<Vec<u8>>,
    /// What this client shows, certificate and key in PEM; nothing when absent.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Reads the PEM files. They are read once: a process that outlives its certificate has to be restarted.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for a file that can't be read.
    pub fn read(authority: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, LogError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| LogError::Invalid(format!("can't read {}: {error}", path.display())))
        };
        let identity = identity.map(|(certificate, key)| Ok::<_, LogError>((read(certificate)?, read(key)?)));
        Ok(Self { authority: Some(read(authority)?), identity: identity.transpose()? })
    }

    pub(super) fn certificates(&self) -> TlsCertificates {
        let client_tls = self
            .identity
            .as_ref()
            .map(|(certificate, key)| ClientTlsConfig { client_cert: certificate.clone(), client_key: key.clone() });
        TlsCertificates { client_tls, root_cert: self.authority.clone() }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authority", &self.authority.as_ref().map(|_| "set"))
            .field("identity", &self.identity.as_ref().map(|_| "set"))
            .finish()
    }
}

/// All that a client needs to know of a cluster's Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// Which servers there are.
    pub topology: Topology,
    /// The ACL user; the default user when absent.
    pub username: Option<String>,
    /// The password; never printed.
    pub password: Option<String>,
    /// Whether and how connections are encrypted.
    pub tls: Option<Tls>,
    /// The cluster's name: clusters of other names may share the Redis.
    pub cluster: String,
    /// When an append counts as accepted. [`Durability::Async`], [`Durability::EverySecond`] and [`Durability::Always`]
    /// are settings of the server (`appendonly`, `appendfsync`), which a client can't change.
    pub durability: Durability,
}

impl RedisConfig {
    /// One server without a password, at the default durability.
    pub fn new(host: impl Into<String>, port: u16, cluster: impl Into<String>) -> Self {
        Self::of(Topology::Standalone(Address::new(host, port)), cluster)
    }

    /// Servers without a password, at the default durability.
    pub fn of(topology: Topology, cluster: impl Into<String>) -> Self {
        Self {
            topology,
            username: None,
            password: None,
            tls: None,
            cluster: cluster.into(),
            durability: Durability::default(),
        }
    }

    /// Parses `redis://[user:password@]host:port`, `redis+sentinel://[…@]host:port,host:port/service` or
    /// `redis+cluster://[…@]host:port,host:port`; `rediss` in place of `redis` encrypts.
    ///
    /// # Errors
    /// [`LogError::Invalid`]; the text, which may hold a password, is not repeated in it.
    pub fn from_url(url: &str, cluster: impl Into<String>) -> Result<Self, LogError> {
        let odd = |what: &str| LogError::Invalid(format!("the URL of Redis {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| odd("has no scheme"))?;
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, encrypted) = match scheme.strip_prefix("rediss") {
            Some(kind) => (kind, true),
            None => (scheme.strip_prefix("redis").ok_or_else(|| odd("has an unknown scheme"))?, false),
        };
        let topology = match (kind, path) {
            ("", "" | "0") => Topology::Standalone(hosts.parse()?),
            ("+sentinel", "") => Topology::sentinels(hosts, DEFAULT_SERVICE, None)?,
            ("+sentinel", service) => Topology::sentinels(hosts, service, None)?,
            ("+cluster", "") => Topology::seeds(hosts)?,
            ("" | "+cluster", _) => return Err(odd("names a database; only 0 is used")),
            _ => return Err(odd("has an unknown scheme")),
        };
        let mut config = Self { tls: encrypted.then(Tls::default), ..Self::of(topology, cluster) };
        if let Some(user) = user {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let decoded = |text| unescaped(text).ok_or_else(|| odd("has an odd user or password"));
            config.username = Some(decoded(name)?).filter(|name| !name.is_empty());
            config.password = Some(decoded(password)?).filter(|password| !password.is_empty());
        }
        Ok(config)
    }
}

/// Undoes the percent signs of a URL.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(plain).ok()
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topology, username, password, tls, cluster, durability } = self;
        f.debug_struct("RedisConfig")
            .field("topology", topology)
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "set"))
            .field("tls", tls)
            .field("cluster", cluster)
            .field("durability", durability)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        match RedisConfig::from_url(url, "c") {
            Ok(config) => format!(
                "{:?} {:?} {:?} tls={}",
                config.topology,
                config.username.unwrap_or_default(),
                config.password.unwrap_or_default(),
                config.tls.is_some()
            ),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn urls_of_all_topologies() {
        assert_eq!(
            parsed("redis://localhost"),
            r#"Standalone(Address { host: "localhost", port: 6379 }) "" "" tls=false"#
        );
        assert_eq!(
            parsed("rediss://me:p%40ss%2f@[::1]:7000/0"),
            r#"Standalone(Address { host: "::1", port: 7000 }) "me" "p@ss/" tls=true"#
        );
        assert_eq!(
            parsed("redis+sentinel://:secret@a,b:1/main"),
            r#"Sentinel { sentinels: [Address { host: "a", port: 26379 }, Address { host: "b", port: 1 }], service: "main", password: None } "" "secret" tls=false"#
        );
        assert_eq!(
            parsed("rediss+cluster://a:1,b:2"),
            r#"Cluster { seeds: [Address { host: "a", port: 1 }, Address { host: "b", port: 2 }] } "" "" tls=true"#
        );
    }

    #[test]
    fn odd_urls_are_refused_without_their_password() {
        for url in ["", "localhost", "http://u:pass@h", "redis://u:pass@", "redis://u:pass@h:x", "redis://u:pass@h/7"] {
            let error = parsed(url);
            assert!(error.starts_with("the store doesn't take this") && !error.contains("pass"), "{url}: {error}");
        }
        assert!(parsed("redis://u:%zz@h").contains("odd user"));
    }
}
