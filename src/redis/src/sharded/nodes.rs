//! The table of nodes that each member of a Redis Cluster keeps, as CLUSTER NODES and its file have it.

use std::net::IpAddr;

/// All slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// One node in the table of another, or its own line there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, that it was given when its volume was new.
    pub id: String,
    /// Where it is; nothing where another one was found there.
    pub ip: Option<IpAddr>,
    /// The host name that it announces.
    pub host: String,
    /// Whose table this is.
    pub is_self: bool,
    /// Most primaries have given it up.
    pub failed: bool,
    /// Whose replica it is; a primary is nobody's.
    pub replica_of: Option<String>,
    /// The number of the newest election that it won.
    pub epoch: u64,
    /// First and last slots that it holds.
    pub slots: Vec<(u16, u16)>,
}

impl Node {
    /// How many slots it holds.
    pub fn held(&self) -> u32 {
        self.slots.iter().map(|(first, last)| u32::from(last.saturating_sub(*first)) + 1).sum()
    }
}

/// Reads a table. Lines that make no sense are left out, as are nodes that have only just been met.
pub(super) fn parse(text: &str) -> Vec<Node> {
    text.lines().filter_map(node).collect()
}

fn node(line: &str) -> Option<Node> {
    let mut words = line.split_whitespace();
    let (id, address, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let epoch = words.nth(2)?.parse().ok()?;
    let _link = words.next()?;
    let has = |flag: &str| flags.split(',').any(|word| word == flag);
    if has("handshake") {
        return None;
    }
    // ip:port@bus,host
    let mut parts = address.split(',');
    let place = parts.next()?.split('@').next()?;
    let ip = place.rsplit_once(':').and_then(|(ip, _)| ip.trim_matches(['[', ']']).parse().ok());
    Some(Node {
        id: id.to_owned(),
        ip: ip.filter(|_| !has("noaddr")),
        host: parts.next().unwrap_or_default().to_owned(),
        is_self: has("myself"),
        failed: has("fail"),
        replica_of: has("slave").then(|| primary.to_owned()),
        epoch,
        // A slot on its way stands in brackets.
        slots: words.filter(|word| !word.starts_with('[')).filter_map(range).collect(),
    })
}

fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let slot = |text: &str| text.parse().ok().filter(|slot| *slot < SLOTS);
    Some((slot(first)?, slot(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_redis_writes_it() {
        let text = "\
a1 10.0.0.1:6379@16379,r-0.r myself,master - 0 0 3 connected 0-99 200 [300->-b2]
b2 10.0.0.2:6379@16379,r-1.r slave,fail a1 1 1 3 disconnected
c3 :0@0,r-2.r master,noaddr - 0 0 0 disconnected
d4 10.0.0.4:6379@16379 handshake - 0 0 0 disconnected
e5 fd00::5:6379@16379,r-4.r,shard-id=77 master,fail? - 0 0 7 connected
vars currentEpoch 7 lastVoteEpoch 0
";
        let nodes = parse(text);
        let names: Vec<_> = nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(names, ["a1", "b2", "c3", "e5"]);
        assert_eq!((nodes[0].is_self, nodes[0].held(), nodes[0].host.as_str()), (true, 101, "r-0.r"));
        assert_eq!((nodes[1].replica_of.as_deref(), nodes[1].failed), (Some("a1"), true));
        assert_eq!((nodes[2].ip, nodes[2].failed), (None, false));
        assert_eq!((nodes[3].ip, nodes[3].failed, nodes[3].epoch), ("fd00::5".parse().ok(), false, 7));
    }
}
