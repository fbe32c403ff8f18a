//! Which primary of a Redis Cluster holds which slot.
//!
//! The cluster client of the redis crate sends all calls for a node down one connection, where a read that blocks would
//! hold up the rest and WAIT would mean everybody's writes, and it repeats calls whose answer was lost. So only the map is
//! kept here; the connections are those of any other primary.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{ErrorKind, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info};

use super::access::{Access, Silence, gather};
use super::config::Address;
use super::link::{Dialer, Seat, Trouble, lock};
use super::primary::{Answer, Primary, Way};
use super::scripts::Call;

/// All slots of a Redis Cluster.
const SLOTS: u16 = 16_384;
/// How long one node may take to say which slots are where.
const ANSWER_DEADLINE: Duration = Duration::from_millis(600);
/// How long the others may take once one has answered.
const GRACE: Duration = Duration::from_millis(150);
/// The map is asked for this often at most.
const REFRESH_EVERY: Duration = Duration::from_millis(250);
/// A call that takes this much longer than it should makes its primary suspect.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// Wait before a call is sent again that a slot on its way has turned away.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The slot of a key: that of what stands between its first braces.
pub(super) fn slot(key: &str) -> u16 {
    let tagged = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tagged.filter(|tag| !tag.is_empty()).unwrap_or(key);
    // CRC-16/XMODEM, as the specification of Redis Cluster has it.
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// What a node says: whether it believes itself part of a working Cluster, the number of the newest election that it has
/// heard of, and who holds which slots.
#[derive(Debug, PartialEq, Eq)]
struct View {
    is_working: bool,
    epoch: u64,
    /// First slot, last slot, primary.
    ranges: Vec<(u16, u16, Address)>,
    nodes: Vec<Address>,
}

struct Map {
    /// By slot.
    holders: Vec<Option<Arc<Primary>>>,
    primaries: BTreeMap<Address, Arc<Primary>>,
    /// All nodes that were heard of last, replicas too.
    nodes: Vec<Address>,
}

/// The primaries of a Cluster.
pub(super) struct Shards {
    access: Access,
    seeds: Vec<Address>,
    map: Mutex<Map>,
    /// When the map was last asked for; locked by the one who asks.
    refreshed_at: tokio::sync::Mutex<Option<Instant>>,
}

/// What to do with a call that was turned away.
enum Turned {
    /// The slot is held by another.
    Moved(u16, Address),
    /// This once, another has the key.
    Ask(Address),
    /// The keys are on their way.
    Later,
}

impl Shards {
    pub(super) fn new(access: Access, seeds: Vec<Address>) -> Self {
        let holders = vec![None; usize::from(SLOTS)];
        let map = Map { holders, primaries: BTreeMap::new(), nodes: Vec::new() };
        Self { access, seeds, map: Mutex::new(map), refreshed_at: tokio::sync::Mutex::default() }
    }

    /// The primary that holds a slot, as far as is known.
    pub(super) fn holder(&self, slot: u16) -> Option<Arc<Primary>> {
        lock(&self.map).holders.get(usize::from(slot)).cloned().flatten()
    }

    /// The primary that holds a slot, once it's known.
    pub(super) async fn find(self: &Arc<Self>, slot: u16) -> Arc<Primary> {
        loop {
            if let Some(primary) = self.holder(slot) {
                return primary;
            }
            self.refresh().await;
            if self.holder(slot).is_none() {
                sleep(REFRESH_EVERY).await;
            }
        }
    }

    /// Makes a call to whoever holds its slot, and follows it where it moves. `patience` is what the call may take without
    /// anything being wrong. Only a call that was turned away, or never sent, is made again.
    pub(super) async fn call(
        self: &Arc<Self>,
        call: &Call<'_>,
        way: Way,
        deadline: Duration,
        patience: Duration,
    ) -> Result<Answer, Trouble> {
        let until = Instant::now() + deadline;
        let mut asked: Option<Arc<Primary>> = None;
        loop {
            let asking = asked.is_some();
            let primary = match asked.take() {
                Some(primary) => primary,
                None => timeout_at(until, self.find(call.slot)).await.map_err(|_| Trouble::Unreachable {
                    after: deadline,
                    last: "no node says who holds the slot".to_owned(),
                })?,
            };
            let answer = self.watched(primary.call(way, call.request(asking, deadline)), patience).await;
            let Err(trouble) = &answer else { return answer };
            let turned = turned_away(trouble);
            if is_suspicious(trouble) {
                self.refresh_soon();
            }
            match turned {
                Some(turned) if Instant::now() < until => match turned {
                    Turned::Moved(slot, address) => {
                        debug!(slot, holder = %address, "a slot has moved");
                        self.moved(slot, address);
                    }
                    Turned::Ask(address) => asked = Some(self.primary(address)),
                    Turned::Later => sleep(TRY_AGAIN_AFTER).await,
                },
                _ => return answer,
            }
        }
    }

    /// Waits for a call, and looks for another holder of its slot meanwhile where it takes suspiciously long: a dial to a
    /// node that is gone ends as soon as the map says so.
    async fn watched<T>(self: &Arc<Self>, call: impl Future<Output = T>, patience: Duration) -> T {
        let mut call = std::pin::pin!(call);
        if let Ok(answer) = timeout(patience + SUSPECT_AFTER, &mut call).await {
            return answer;
        }
        loop {
            self.refresh_soon();
            if let Ok(answer) = timeout(REFRESH_EVERY, &mut call).await {
                return answer;
            }
        }
    }

    fn primary(&self, address: Address) -> Arc<Primary> {
        lock(&self.map).primary(&self.access, address)
    }

    fn moved(&self, slot: u16, address: Address) {
        let mut map = lock(&self.map);
        let primary = map.primary(&self.access, address);
        if let Some(holder) = map.holders.get_mut(usize::from(slot)) {
            *holder = Some(primary);
        }
    }

    /// Asks for the map beside the calls.
    pub(super) fn refresh_soon(self: &Arc<Self>) {
        let shards = Arc::clone(self);
        tokio::spawn(async move {
            // Somebody else is asking already.
            if shards.refreshed_at.try_lock().is_ok() {
                shards.refresh().await;
            }
        });
    }

    async fn refresh(&self) {
        let mut refreshed_at = self.refreshed_at.lock().await;
        if refreshed_at.is_some_and(|at| at.elapsed() < REFRESH_EVERY) {
            return;
        }
        let mut nodes = lock(&self.map).nodes.clone();
        nodes.extend(self.seeds.iter().cloned());
        nodes.sort();
        nodes.dedup();
        let answers = gather(nodes.iter().map(|node| self.ask(node)), ANSWER_DEADLINE, GRACE).await;
        // A node that was cut off, or has just come back, is behind those that took part in the newest election.
        let newest = answers
            .into_iter()
            .flatten()
            .filter(|view| !view.ranges.is_empty())
            .max_by_key(|view| (view.is_working, view.epoch));
        if let Some(view) = newest {
            lock(&self.map).adopt(&self.access, view);
        }
        *refreshed_at = Some(Instant::now());
    }

    async fn ask(&self, node: &Address) -> Result<View, Silence> {
        let mut connection = self.access.inquire(node).await?;
        let (info, slots): (String, Value) =
            redis::pipe().cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        view(node, &info, slots).ok_or(Silence::Odd)
    }
}

impl Map {
    fn primary(&mut self, access: &Access, address: Address) -> Arc<Primary> {
        let new = || Arc::new(Primary::new(Dialer::new(access.clone(), Seat::Fixed(address.clone()))));
        Arc::clone(self.primaries.entry(address.clone()).or_insert_with(new))
    }

    fn adopt(&mut self, access: &Access, view: View) {
        let mut holders = vec![None; usize::from(SLOTS)];
        let mut kept = BTreeMap::new();
        for (first, last, address) in view.ranges {
            let primary = self.primary(access, address.clone());
            kept.insert(address, Arc::clone(&primary));
            if let Some(range) = holders.get_mut(usize::from(first)..=usize::from(last)) {
                range.fill(Some(primary));
            }
        }
        for (address, primary) in std::mem::replace(&mut self.primaries, kept) {
            if !self.primaries.contains_key(&address) {
                info!(node = %address, "a node of the Redis Cluster holds no slots any more");
                primary.retire();
            }
        }
        self.holders = holders;
        self.nodes = view.nodes;
    }
}

/// Whether the map may be wrong.
fn is_suspicious(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Redis(error) => {
            error.is_io_error()
                || matches!(
                    error.kind(),
                    ErrorKind::Server(
                        ServerErrorKind::Moved | ServerErrorKind::ClusterDown | ServerErrorKind::ReadOnly
                    )
                )
        }
        Trouble::Unreachable { .. } | Trouble::NoAnswer(_) | Trouble::Superseded => true,
        Trouble::Retired => false,
    }
}

fn turned_away(trouble: &Trouble) -> Option<Turned> {
    let error = match trouble {
        Trouble::Redis(error) => error,
        Trouble::Retired => return Some(Turned::Later),
        _ => return None,
    };
    let target = || {
        let (address, slot) = error.redirect_node()?;
        Some((slot, address.parse().ok()?))
    };
    match error.kind() {
        // Without a name in it, the answer says only that the map is wrong.
        ErrorKind::Server(ServerErrorKind::Moved) => {
            Some(target().map_or(Turned::Later, |(slot, address)| Turned::Moved(slot, address)))
        }
        ErrorKind::Server(ServerErrorKind::Ask) => {
            Some(target().map_or(Turned::Later, |(_, address)| Turned::Ask(address)))
        }
        ErrorKind::Server(ServerErrorKind::TryAgain) => Some(Turned::Later),
        _ => None,
    }
}

fn view(node: &Address, info: &str, slots: Value) -> Option<View> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    let mut view = View {
        is_working: field("cluster_state")? == "ok",
        epoch: field("cluster_current_epoch")?.parse().ok()?,
        ranges: Vec::new(),
        nodes: vec![node.clone()],
    };
    let Value::Array(ranges) = slots else { return None };
    for range in ranges {
        let Value::Array(parts) = range else { return None };
        let mut parts = parts.into_iter();
        let (first, last) = (slot_number(parts.next()?)?, slot_number(parts.next()?)?);
        let holders = parts.map(|part| address(node, part)).collect::<Option<Vec<_>>>()?;
        view.ranges.push((first, last, holders.first()?.clone()));
        view.nodes.extend(holders);
    }
    Some(view)
}

fn slot_number(value: Value) -> Option<u16> {
    match value {
        Value::Int(slot) => u16::try_from(slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

/// Takes the address out of a node's description. One without a host is reached where the answer came from.
fn address(asked: &Address, value: Value) -> Option<Address> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let host = match parts.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok()?,
        Value::Nil => String::new(),
        _ => return None,
    };
    let Value::Int(port) = parts.next()? else { return None };
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host };
    Some(Address::new(host, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC-16/XMODEM.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("hebb:{c/d/0}:log"), slot("{c/d/0}"));
        assert_eq!(slot("hebb:{c/d/0}:log"), slot("c/d/0"));
        assert_ne!(slot("{c/d/0}"), slot("{c/d/1}"));
    }

    #[test]
    fn a_node_without_a_name_is_where_the_answer_came_from() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let name = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let slots = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(99), node(Value::Nil, 7000), node(name("b"), 7001)]),
            Value::Array(vec![Value::Int(100), Value::Int(16383), node(name("c"), 7002)]),
        ]);
        let asked = Address::new("a", 7000);
        let info = "cluster_state:ok\r\ncluster_current_epoch:7\r\n";
        let seen = view(&asked, info, slots);
        let wanted = View {
            is_working: true,
            epoch: 7,
            ranges: vec![(0, 99, asked.clone()), (100, 16383, Address::new("c", 7002))],
            nodes: vec![asked.clone(), asked.clone(), Address::new("b", 7001), Address::new("c", 7002)],
        };
        assert_eq!(seen, Some(wanted));
        assert_eq!(view(&asked, info, Value::Nil), None);
        let beyond = Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(16384), node(name("b"), 1)])]);
        assert_eq!(view(&asked, info, beyond), None);
    }
}
