//! Servers that elect a primary among themselves: three with Sentinels beside them, or a Cluster of six.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_log::{Durability, RedisConfig, RedisStore, Topology};

use crate::certificates::Certificates;
use crate::server::{PASSWORD, Server};

/// The Sentinels' own.
const SENTINEL_PASSWORD: &str = "another-password-that-is-never-printed";
const SERVICE: &str = "hebb";
/// Longer than a machine under load keeps a process waiting.
const READY: Duration = Duration::from_secs(60);

/// Waits for something to become true.
pub fn eventually(limit: Duration, what: &str, mut is_true: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    begun.elapsed()
}

pub struct Fleet {
    pub servers: Vec<Server>,
    topology: Topology,
    tls: Option<Arc<Certificates>>,
    /// Held, because they end with the value.
    _sentinels: Vec<Server>,
}

impl Fleet {
    /// A primary, two replicas, three Sentinels. A server counts as lost after `down_after`.
    pub fn sentinel(down_after: Duration, encrypted: bool) -> Self {
        let tls = encrypted.then(|| Arc::new(Certificates::new()));
        let start = |more: &str| {
            let more = format!("--min-replicas-to-write 1 --min-replicas-max-lag 10 {more}");
            Server::start_with("everysec", &more, tls.clone())
        };
        let primary = start("");
        let replica = format!("--replicaof 127.0.0.1 {}", primary.port);
        let servers = vec![start(&replica), start(&replica), primary];
        let connected = || servers[2].figure("connected_slaves").as_deref() == Some("2");
        eventually(READY, "two replicas", || connected() && servers[..2].iter().all(follows));
        let lines = format!(
            "requirepass {SENTINEL_PASSWORD}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {port} 2\n\
             sentinel auth-pass {SERVICE} {PASSWORD}\n\
             sentinel down-after-milliseconds {SERVICE} {down}\n\
             sentinel failover-timeout {SERVICE} 5000\n\
             sentinel parallel-syncs {SERVICE} 2\n",
            port = servers[2].port,
            down = down_after.as_millis(),
        );
        let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(&lines, tls.clone())).collect();
        let knows = |sentinel: &Server| {
            let answer = sentinel.ask(SENTINEL_PASSWORD, &["SENTINEL", "MASTER", SERVICE]);
            let lines: Vec<&str> = answer.lines().collect();
            let field = |name: &str| lines.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
            (field("num-slaves"), field("num-other-sentinels")) == (Some("2"), Some("2"))
        };
        eventually(READY, "Sentinels that know each other", || sentinels.iter().all(knows));
        let hosts: Vec<String> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        let topology = Topology::sentinels(&hosts.join(","), SERVICE, Some(SENTINEL_PASSWORD.to_owned()));
        Self { servers, topology: topology.expect("addresses"), tls, _sentinels: sentinels }
    }

    /// Three primaries with a replica each.
    pub fn cluster(node_timeout: Duration, encrypted: bool) -> Self {
        let tls = encrypted.then(|| Arc::new(Certificates::new()));
        let more = format!("--cluster-enabled yes --cluster-node-timeout {}", node_timeout.as_millis());
        let servers: Vec<Server> = (0..6).map(|_| Server::start_with("everysec", &more, tls.clone())).collect();
        let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["-a", PASSWORD, "--no-auth-warning"]);
        if let Some(certificates) = &tls {
            certificates.encrypt(&mut create);
        }
        create.args(["--cluster", "create"]).args(&hosts).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let created = create.stdin(Stdio::null()).output().expect("redis-cli runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let works = |server: &Server| {
            server.ask(PASSWORD, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (follows(server) || server.figure("connected_slaves").as_deref() == Some("1"))
        };
        eventually(READY, "a Cluster", || servers.iter().all(works));
        // The last node will do: it knows the others.
        let topology = Topology::seeds(&hosts[5]).expect("an address");
        Self { servers, topology, tls, _sentinels: Vec::new() }
    }

    pub fn config(&self, cluster: &str, durability: Durability) -> RedisConfig {
        let tls = self.tls.as_ref().map(|certificates| certificates.client());
        let config = RedisConfig::of(self.topology.clone(), cluster);
        RedisConfig { password: Some(PASSWORD.to_owned()), tls, durability, ..config }
    }

    pub async fn store(&self, cluster: &str, durability: Durability) -> RedisStore {
        let begun = Instant::now();
        loop {
            match RedisStore::connect(self.config(cluster, durability)).await {
                Ok(store) => return store,
                Err(error) => assert!(begun.elapsed() < READY, "{error:?}"),
            }
        }
    }
}

/// Whether a server is a replica that has all its primary has.
pub fn follows(server: &Server) -> bool {
    server.figure("role").as_deref() == Some("slave") && server.figure("master_link_status").as_deref() == Some("up")
}
