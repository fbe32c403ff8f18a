//! Where a process finds its Redis: the same options for every role.

use std::path::PathBuf;

use clap::Args;
use hebb_log::{Address, DEFAULT_SERVICE, Durability, LogError, RedisConfig, Tls, Topology};

#[derive(Args)]
pub struct RedisOptions {
    /// Host of Redis [default: 127.0.0.1]
    #[arg(long, env = "REDIS_HOST")]
    redis_host: Option<String>,
    /// Port of Redis
    #[arg(long, env = "REDIS_PORT", default_value_t = 6379)]
    redis_port: u16,
    /// Sentinels, host:port,host:port: they say which Redis is primary, in place of host and port
    #[arg(long, env = "REDIS_SENTINELS")]
    redis_sentinels: Option<String>,
    /// What the Sentinels call the primary
    #[arg(long, env = "REDIS_SENTINEL_MASTER", default_value = DEFAULT_SERVICE)]
    redis_sentinel_master: String,
    /// Password of the Sentinels, where they have one; better given by the environment than on the command line
    #[arg(long, env = "REDIS_SENTINEL_PASSWORD", hide_env_values = true)]
    redis_sentinel_password: Option<String>,
    /// Redis is a Cluster: true, where host and port are one of its nodes, or some of its nodes, host:port,host:port
    #[arg(long, env = "REDIS_CLUSTER", value_parser = Sharding::parse)]
    redis_cluster: Option<Sharding>,
    /// ACL user of Redis [default: the default user]
    #[arg(long, env = "REDIS_USERNAME")]
    redis_username: Option<String>,
    /// Password of Redis; better given by the environment than on the command line
    #[arg(long, env = "REDIS_PASSWORD", hide_env_values = true)]
    redis_password: Option<String>,
    #[command(flatten)]
    pub tls: TlsOptions,
    /// When an event counts as accepted: Async, EverySecond, Always (settings of the server, which has to have them), or
    /// Replicated:n, when n replicas have it too
    #[arg(long, env = "REDIS_DURABILITY", default_value = "EverySecond")]
    redis_durability: Durability,
}

/// Whether Redis is a Cluster, and where.
#[derive(Clone)]
enum Sharding {
    None,
    /// Host and port are one of its nodes.
    AtHost,
    /// Some of its nodes, host:port,host:port.
    Nodes(String),
}

impl Sharding {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_lowercase().as_str() {
            "" | "false" | "no" | "off" | "0" => Ok(Sharding::None),
            "true" | "yes" | "on" | "1" => Ok(Sharding::AtHost),
            // A host alone can't be told from a word that is misspelt.
            word if !word.contains([':', ',']) => {
                Err("is neither true nor false, nor some nodes, host:port,host:port".to_owned())
            }
            _ => Ok(Sharding::Nodes(text.to_owned())),
        }
    }
}

#[derive(Args)]
pub struct TlsOptions {
    /// Certificates that may vouch for Redis and its Sentinels, PEM; given, connections are encrypted
    #[arg(long, env = "REDIS_TLS_CA")]
    redis_tls_ca: Option<PathBuf>,
    /// Certificate that this process shows to Redis, PEM
    #[arg(long, env = "REDIS_TLS_CERT", requires = "redis_tls_key")]
    redis_tls_cert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, env = "REDIS_TLS_KEY", requires = "redis_tls_cert")]
    redis_tls_key: Option<PathBuf>,
}

impl RedisOptions {
    /// What says where Redis is, if anything does.
    pub fn named_by(&self) -> Option<&'static str> {
        let said = |option: &Option<String>| option.as_deref().is_some_and(|value| !value.is_empty());
        let is_cluster = !matches!(self.redis_cluster, None | Some(Sharding::None));
        [
            (said(&self.redis_host), "--redis-host (REDIS_HOST)"),
            (said(&self.redis_sentinels), "--redis-sentinels (REDIS_SENTINELS)"),
            (is_cluster, "--redis-cluster (REDIS_CLUSTER)"),
        ]
        .into_iter()
        .find_map(|(is_said, option)| is_said.then_some(option))
    }

    /// The configuration of a client for the cluster of this name.
    pub fn config(self, cluster: &str) -> Result<RedisConfig, LogError> {
        let host = self.redis_host.filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
        let sentinels = self.redis_sentinels.filter(|list| !list.is_empty());
        let topology = match (sentinels, self.redis_cluster.unwrap_or(Sharding::None)) {
            (Some(_), Sharding::AtHost | Sharding::Nodes(_)) => {
                return Err(LogError::Invalid("Redis has Sentinels or is a Cluster, not both".to_owned()));
            }
            (Some(list), Sharding::None) => Topology::sentinels(
                &list,
                &self.redis_sentinel_master,
                self.redis_sentinel_password.filter(|password| !password.is_empty()),
            )?,
            (None, Sharding::AtHost) => Topology::Cluster { seeds: vec![Address::new(host, self.redis_port)] },
            (None, Sharding::Nodes(nodes)) => Topology::seeds(&nodes)?,
            (None, Sharding::None) => Topology::Standalone(Address::new(host, self.redis_port)),
        };
        Ok(RedisConfig {
            username: self.redis_username.filter(|name| !name.is_empty()),
            password: self.redis_password.filter(|password| !password.is_empty()),
            tls: self.tls.read()?,
            durability: self.redis_durability,
            ..RedisConfig::of(topology, cluster)
        })
    }
}

impl TlsOptions {
    /// The files' content, where connections are to be encrypted.
    pub fn read(self) -> Result<Option<Tls>, LogError> {
        let given = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        let identity = given(self.redis_tls_cert).zip(given(self.redis_tls_key));
        match (given(self.redis_tls_ca), identity) {
            (Some(authority), identity) => {
                let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
                Tls::read(&authority, identity).map(Some)
            }
            (None, None) => Ok(None),
            (None, Some(_)) => Err(LogError::Invalid("a certificate for Redis needs REDIS_TLS_CA too".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        redis: RedisOptions,
    }

    fn topology(arguments: &[&str]) -> String {
        let line = ["hebb"].iter().chain(arguments);
        match Line::try_parse_from(line) {
            Ok(line) => match line.redis.config("c") {
                Ok(config) => format!("{:?} {:?}", config.topology, config.durability),
                Err(error) => error.to_string(),
            },
            Err(error) => error.kind().to_string(),
        }
    }

    #[test]
    fn options_make_a_topology() {
        let host = ["--redis-host", "r"];
        let check = |more: &[&str], wanted: &str| {
            let got = topology(&[&host, more].concat());
            assert!(got.starts_with(wanted), "{more:?}: {got}");
        };
        check(&[], r#"Standalone(Address { host: "r", port: 6379 }) EverySecond"#);
        check(&["--redis-cluster", ""], "Standalone");
        check(&["--redis-cluster", "false", "--redis-sentinels", ""], "Standalone");
        check(&["--redis-cluster", "maybe"], "invalid value");
        check(&["--redis-cluster", "true"], r#"Cluster { seeds: [Address { host: "r", port: 6379 }] }"#);
        check(
            &["--redis-cluster", "a,b:1"],
            r#"Cluster { seeds: [Address { host: "a", port: 6379 }, Address { host: "b""#,
        );
        check(
            &["--redis-sentinels", "a, b:1"],
            r#"Sentinel { sentinels: [Address { host: "a", port: 26379 }, Address { host: "b", port: 1 }], service: "hebb""#,
        );
        check(&["--redis-sentinels", "a", "--redis-cluster", "true"], "the store doesn't take this");
        check(&["--redis-cluster", "a:b"], "the store doesn't take this");
        assert!(topology(&["--redis-durability", "Replicated:2"]).ends_with("Replicated { replicas: 2 }"));
        for durability in ["Replicated:0", "Replicated", "always", "Replicated:256"] {
            assert!(topology(&["--redis-durability", durability]).contains("invalid value"), "{durability}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key_and_an_authority() {
        assert!(topology(&["--redis-tls-cert", "c"]).contains("required arguments"));
        assert!(topology(&["--redis-tls-cert", "c", "--redis-tls-key", "k"]).contains("REDIS_TLS_CA"));
        assert!(topology(&["--redis-tls-ca", "/nowhere/ca.pem"]).contains("can't read /nowhere/ca.pem"));
    }
}
