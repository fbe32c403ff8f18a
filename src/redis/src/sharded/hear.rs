//! Asks the members of a Redis Cluster what they know.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use hebb_api::names::REDIS_PORT;
use redis::RedisError;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::nodes::{Node, parse};
use crate::ask::{Group, Info};

/// How long a member may take to be found, to be connected to and to answer.
const DEADLINE: Duration = Duration::from_millis(1_000);

/// How a replica stands to its primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// It has never been in step since its process began; Redis doesn't elect such a one.
    #[default]
    Never,
    /// It was in step, and has lost its primary.
    Lost,
    /// It is in step.
    Up,
}

/// What one member says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Where it was asked.
    pub ip: Option<IpAddr>,
    /// Whether it believes itself part of a working Cluster.
    pub working: bool,
    /// Its table.
    pub nodes: Vec<Node>,
    /// Keys that it holds.
    pub keys: u64,
    /// How it stands to its primary, as a replica.
    pub link: Link,
    /// Where it looks for its primary, as a replica.
    pub looks_at: Option<IpAddr>,
}

impl Said {
    /// Its own line; a table without one is refused when it is read.
    pub fn own(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.is_self)
    }

    /// A line of its table.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    fn new(ip: IpAddr, table: &str, cluster: &str, info: &str) -> Option<Self> {
        let info = Info::parse(info);
        let said = Self {
            ip: Some(ip),
            working: Info::parse(cluster).field("cluster_state") == "ok",
            nodes: parse(table),
            keys: info.server().keys,
            looks_at: info.field("master_host").parse().ok(),
            link: match info.field("master_link_status") {
                "up" => Link::Up,
                "down" if !info.field("master_link_down_since_seconds").starts_with('-') => Link::Lost,
                _ => Link::Never,
            },
        };
        said.own().is_some().then_some(said)
    }
}

impl Group {
    /// What every member says; nothing of one that doesn't answer.
    pub async fn hear(&self) -> Vec<Option<Said>> {
        join_all(self.hosts.iter().map(|host| self.hear_one(host, None))).await
    }

    /// What the member of this host says, asked at an address where that is known. An address may have been given to another
    /// pod while its name still stands for the former one: who announces another host isn't believed.
    pub(super) async fn hear_one(&self, host: &str, at: Option<IpAddr>) -> Option<Said> {
        let asked = async {
            let ip = match at {
                Some(ip) => ip,
                None => lookup_host((host, port())).await.ok()?.next()?.ip(),
            };
            let (table, cluster, info) = self.tables(host, ip).await.ok()?;
            Said::new(ip, &table, &cluster, &info)
        };
        let said = timeout(DEADLINE, asked).await.ok().flatten()?;
        said.own().is_some_and(|own| own.host == host).then_some(said)
    }

    async fn tables(&self, host: &str, ip: IpAddr) -> Result<(String, String, String), RedisError> {
        let mut connection = self.connect(host, Some(ip), REDIS_PORT).await?;
        let mut questions = redis::pipe();
        questions.cmd("CLUSTER").arg("NODES").cmd("CLUSTER").arg("INFO").cmd("INFO");
        questions.query_async(&mut connection).await
    }
}

fn port() -> u16 {
    u16::try_from(REDIS_PORT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_was_never_in_step_is_told_from_one_that_lost_its_primary() {
        let link = |info: &str| {
            let table = "a 10.0.0.1:6379@16379,r myself,slave b 0 0 1 connected";
            Said::new(IpAddr::from([10, 0, 0, 1]), table, "cluster_state:ok", info).unwrap().link
        };
        assert_eq!(link("role:slave\r\nmaster_link_status:up\r\n"), Link::Up);
        assert_eq!(link("master_link_status:down\r\nmaster_link_down_since_seconds:3\r\n"), Link::Lost);
        assert_eq!(link("master_link_status:down\r\nmaster_link_down_since_seconds:-1\r\n"), Link::Never);
        assert_eq!(Said::new(IpAddr::from([10, 0, 0, 1]), "", "", ""), None, "a table without its own line");
    }
}
