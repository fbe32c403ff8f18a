//! Decides what a member of a Redis Cluster does about what Redis leaves to people: pure.
//!
//! Slots are handed out once, to members of which every one is new and knows all others. From then on nothing here gives or
//! takes a slot: a server without any becomes a replica, and Redis elects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::hear::{Link, Said};
use super::nodes::{Node, SLOTS};

/// How long a primary that comes back waits for its replica to be elected: detection, election and promotion take some five
/// seconds, and a failed attempt is repeated after ten.
const ELECTION_PATIENCE: Duration = Duration::from_secs(20);
/// How long a replica waits for a primary to be there before it stands for election itself. Before that, the primary may
/// come back, and after a full restart its file has everything, while a replica's may lack the end.
const PRIMARY_PATIENCE: Duration = Duration::from_secs(60);

/// What a member sees.
#[derive(Clone, Debug)]
pub struct View {
    /// The member's own number.
    pub me: usize,
    /// The members' host names.
    pub hosts: Vec<String>,
    /// What each says, this one too.
    pub members: Vec<Option<Said>>,
    /// Of whom the volume holds a full copy, if it is a replica's.
    pub copy_of: Option<String>,
    /// For how long the own primary hasn't answered.
    pub primary_away_for: Duration,
}

/// One thing to do at the own server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Meet the member at this address.
    Meet(IpAddr),
    /// Forget this node: its volume is gone, and another has its place.
    Forget(String),
    /// Take these slots, which nobody has ever had.
    Found(u16, u16),
    /// Become the replica of this node.
    Follow(String),
    /// Stand for election: the primary is gone, and Redis does nothing by itself about one that this server has never seen.
    Stand,
}

/// What to do now; nothing when all is well.
pub fn tend(view: &View) -> Vec<Step> {
    let Some(said) = view.members.get(view.me).and_then(Option::as_ref) else { return Vec::new() };
    let Some(own) = said.own() else { return Vec::new() };
    let mut steps: Vec<Step> = strangers(view, said).map(Step::Meet).collect();
    steps.extend(ghosts(view, said).map(Step::Forget));
    if let Some((first, last)) = first_slots(view, said, own) {
        steps.push(Step::Found(first, last));
    } else if let Some(primary) = astray(view, said, own).or_else(|| vacancy(view, said, own)) {
        steps.push(Step::Follow(primary));
    } else if stands(view, said, own) {
        steps.push(Step::Stand);
    }
    steps
}

/// The slots of a shard when slots are handed out: as even as can be, and the same for everybody who asks.
pub fn slots_of(shard: usize, shards: usize) -> (u16, u16) {
    let bound = |shard: usize| u16::try_from(shard * usize::from(SLOTS) / shards.max(1)).unwrap_or(SLOTS);
    (bound(shard), bound(shard + 1).saturating_sub(1))
}

/// The members that answer, by their numbers, and their own lines.
fn answering(view: &View) -> impl Iterator<Item = (usize, &Said, &Node)> {
    let members = view.members.iter().enumerate();
    members.filter_map(|(number, said)| said.as_ref().and_then(|said| Some((number, said, said.own()?))))
}

/// Where members are that the own server doesn't know, or knows elsewhere.
fn strangers<'a>(view: &'a View, said: &'a Said) -> impl Iterator<Item = IpAddr> + 'a {
    answering(view).filter_map(|(number, other, line)| {
        let known = said.node(&line.id).is_some_and(|node| node.ip == other.ip);
        other.ip.filter(|_| number != view.me && !known)
    })
}

/// Dead nodes without slots or replicas in whose place another one is, or that are none of the members.
fn ghosts<'a>(view: &'a View, said: &'a Said) -> impl Iterator<Item = String> + 'a {
    said.nodes.iter().filter_map(|node| {
        let replaced = answering(view).any(|(number, _, line)| {
            view.hosts.get(number).is_some_and(|host| *host == node.host) && line.id != node.id
        });
        // One that was heard of from a third has no name.
        let surplus =
            view.members.iter().all(Option::is_some) && answering(view).all(|(_, _, line)| line.id != node.id);
        let followed =
            said.nodes.iter().any(|other| !other.failed && other.replica_of.as_deref() == Some(node.id.as_str()));
        let dead = node.failed || node.ip.is_none();
        (dead && !node.is_self && node.slots.is_empty() && (replaced || surplus) && !followed).then(|| node.id.clone())
    })
}

/// The slots to take, when every member is new or has just taken those that are its own by the same rule.
fn first_slots(view: &View, said: &Said, own: &Node) -> Option<(u16, u16)> {
    let shards = view.members.len() / 2;
    let is_new = |said: &Said, line: &Node| line.replica_of.is_none() && line.slots.is_empty() && said.keys == 0;
    if view.me >= shards || !is_new(said, own) {
        return None;
    }
    let ids: Vec<&str> = answering(view).map(|(_, _, line)| line.id.as_str()).collect();
    if ids.len() != view.members.len() {
        return None;
    }
    let founding = answering(view).all(|(number, other, line)| {
        let knows_all = ids.iter().all(|id| other.node(id).is_some());
        let first = number < shards && line.slots == [slots_of(number, shards)];
        // Somebody else's claim, even that of a dead node, means that there was a Cluster.
        let nobody_else = other.nodes.iter().all(|node| {
            let number = ids.iter().position(|id| *id == node.id);
            node.slots.is_empty()
                || number.is_some_and(|number| number < shards && node.slots == [slots_of(number, shards)])
        });
        knows_all && nobody_else && (is_new(other, line) || first)
    });
    founding.then(|| slots_of(view.me, shards))
}

/// The primary, where the server looks for it at a former address: Redis doesn't look elsewhere when it has heard of the new
/// one from a third.
fn astray(view: &View, said: &Said, own: &Node) -> Option<String> {
    let primary = own.replica_of.as_ref()?;
    let known = said.node(primary)?.ip?;
    let is_there = answering(view).any(|(_, other, line)| line.id == *primary && other.ip == Some(known));
    (is_there && said.link != Link::Up && said.looks_at != Some(known)).then(|| primary.clone())
}

/// Whose replica the server becomes: those without a place take the shards with the fewest replicas, in their order, and then
/// one that is too many takes a shard that has none. What members say of themselves is newer than any table.
fn vacancy(view: &View, said: &Said, own: &Node) -> Option<String> {
    let alive = || said.nodes.iter().filter(|node| !node.failed);
    if !own.slots.is_empty() || alive().map(Node::held).sum::<u32>() < u32::from(SLOTS) {
        // A shard without a primary is its replica's to take first.
        return None;
    }
    let follows = |node: &Node, id: &str| node.replica_of.as_deref() == Some(id);
    let mut shards: Vec<(usize, (u16, u16), &str)> = alive()
        .filter_map(|node| {
            let first = *node.slots.first()?;
            let present = answering(view).filter(|(_, _, line)| follows(line, &node.id)).count();
            let silent = |other: &&Node| answering(view).all(|(_, _, line)| line.id != other.id);
            let absent = alive().filter(silent).filter(|other| follows(other, &node.id)).count();
            Some((present + absent, first, node.id.as_str()))
        })
        .collect();
    for (number, other, line) in answering(view) {
        if line.replica_of.is_some() || !line.slots.is_empty() || other.keys > 0 {
            continue;
        }
        let fewest = shards.iter_mut().min()?;
        if number == view.me {
            return Some(fewest.2.to_owned());
        }
        fewest.0 += 1;
    }
    let in_step = |said: &Said| said.own().is_some_and(|line| line.replica_of.is_none() || said.link == Link::Up);
    if !view.members.iter().all(|said| said.as_ref().is_some_and(in_step)) {
        return None;
    }
    // From the last on, so that the first keeps its place.
    for (number, _, line) in answering(view).collect::<Vec<_>>().into_iter().rev() {
        let Some(from) = shards.iter().position(|shard| shard.0 > 1 && follows(line, shard.2)) else { continue };
        let Some(to) = shards.iter().position(|shard| shard.0 == 0) else { break };
        if number == view.me {
            return shards.get(to).map(|shard| shard.2.to_owned());
        }
        for (place, shard) in shards.iter_mut().enumerate() {
            shard.0 = if place == from { shard.0 - 1 } else { shard.0 + usize::from(place == to) };
        }
    }
    None
}

/// Whether the server has a copy of all that a primary had which is gone, and Redis has elected nobody.
fn stands(view: &View, said: &Said, own: &Node) -> bool {
    let Some(primary) = &own.replica_of else { return false };
    said.node(primary).is_some_and(|node| !node.slots.is_empty())
        && said.link != Link::Up
        && view.copy_of.as_ref() == Some(primary)
        && view.primary_away_for >= PRIMARY_PATIENCE
        && answering(view).all(|(_, _, line)| line.id != *primary)
}

/// Whether a server begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It does.
    Now,
    /// It was a primary, and its replica has everything that it acknowledged; the server's file may not. That one is to be
    /// elected first.
    GivingWay,
}

/// Whether the server of this node begins, by what the others say after so long a wait.
pub fn begin(id: Option<&str>, members: &[Option<Said>], waited: Duration) -> Begin {
    let follows = |said: &Said| said.own().is_some_and(|own| id.is_some() && own.replica_of.as_deref() == id);
    let electable = members.iter().flatten().any(|said| follows(said) && said.link != Link::Never);
    if electable && waited < ELECTION_PATIENCE { Begin::GivingWay } else { Begin::Now }
}

/// Who takes writes, by the numbers of the members, and how many slots nobody holds; nothing while no member answers. Of
/// several, one that takes part in a working Cluster and has heard of the newest election is believed.
pub fn primaries(hosts: &[String], members: &[Option<Said>]) -> Option<(BTreeSet<usize>, u32)> {
    let newest = |said: &&Said| (said.working, said.nodes.iter().map(|node| node.epoch).max());
    let said = members.iter().flatten().max_by_key(newest)?;
    let holding = || said.nodes.iter().filter(|node| !node.failed && !node.slots.is_empty());
    let covered: u32 = holding().map(Node::held).sum();
    let numbers = holding().filter_map(|node| hosts.iter().position(|host| *host == node.host)).collect();
    Some((numbers, u32::from(SLOTS).saturating_sub(covered)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SIZE: usize = 6;

    /// A Redis Cluster as it is; the members' tables are made from it.
    #[derive(Clone, Debug)]
    struct World {
        /// By the number of the member: its node, its keys, and whether it answers.
        members: Vec<(Node, u64, bool)>,
        /// Nodes whose volumes are gone.
        lost: Vec<Node>,
        /// Who knows whom; everybody knows himself.
        knows: Vec<Vec<bool>>,
        /// The tables don't say yet who follows whom.
        lags: bool,
    }

    fn host(number: usize) -> String {
        format!("r-{number}")
    }

    fn ip(number: usize) -> Option<IpAddr> {
        format!("10.0.0.{number}").parse().ok()
    }

    fn fresh(number: usize, id: &str) -> Node {
        Node { id: id.to_owned(), host: host(number), ip: ip(number), ..Node::default() }
    }

    impl World {
        fn new() -> Self {
            let member = |number| (fresh(number, &format!("n{number}")), 0, true);
            let knows = vec![vec![false; SIZE]; SIZE];
            Self { members: (0..SIZE).map(member).collect(), lost: Vec::new(), knows, lags: false }
        }

        fn founded() -> Self {
            let mut world = Self { knows: vec![vec![true; SIZE]; SIZE], ..Self::new() };
            for shard in 0..SIZE / 2 {
                world.members[shard].0.slots = vec![slots_of(shard, SIZE / 2)];
                world.members[shard].1 = 7;
                world.members[shard + SIZE / 2].0.replica_of = Some(format!("n{shard}"));
                world.members[shard + SIZE / 2].1 = 7;
            }
            world
        }

        /// A pod comes back with a new volume; the node that it was stays in the tables.
        fn lose(&mut self, number: usize) {
            let was = std::mem::replace(&mut self.members[number].0, fresh(number, &format!("m{number}")));
            self.lost.push(Node { failed: true, ..was });
            self.members[number].1 = 0;
        }

        fn view(&self, me: usize) -> View {
            let said = |number: usize| {
                let (own, keys, answers) = &self.members[number];
                let others = (0..SIZE).filter(|other| *other == number || self.knows[number][*other]);
                let nodes = others.map(|other| Node {
                    is_self: other == number,
                    failed: !self.members[other].2,
                    replica_of: self.members[other].0.replica_of.clone().filter(|_| other == number || !self.lags),
                    ..self.members[other].0.clone()
                });
                let link = if own.replica_of.is_some() { Link::Up } else { Link::Never };
                let nodes = nodes.chain(self.lost.iter().cloned()).collect();
                answers.then_some(Said { ip: ip(number), working: true, nodes, keys: *keys, link, looks_at: None })
            };
            View {
                me,
                hosts: (0..SIZE).map(host).collect(),
                members: (0..SIZE).map(said).collect(),
                copy_of: None,
                primary_away_for: Duration::ZERO,
            }
        }

        /// Has a member do what it decides; whether that was anything.
        fn act(&mut self, me: usize) -> bool {
            let steps = tend(&self.view(me));
            for step in &steps {
                match step {
                    Step::Meet(at) => {
                        let other = (0..SIZE).find(|number| ip(*number) == Some(*at)).unwrap();
                        self.knows[me][other] = true;
                        self.knows[other][me] = true;
                    }
                    Step::Forget(id) => self.lost.retain(|node| node.id != *id),
                    Step::Found(first, last) => self.members[me].0.slots = vec![(*first, *last)],
                    Step::Follow(id) => self.members[me].0.replica_of = Some(id.clone()),
                    Step::Stand => {}
                }
            }
            !steps.is_empty()
        }

        fn settle(&mut self, order: &[usize]) {
            for _ in 0..20 {
                if order.iter().filter(|me| self.members[**me].2 && self.act(**me)).count() == 0 {
                    return;
                }
            }
            panic!("it never comes to rest: {self:?}");
        }

        fn replicas_of(&self, id: &str) -> usize {
            self.members.iter().filter(|(node, ..)| node.replica_of.as_deref() == Some(id)).count()
        }
    }

    fn is_given(step: &Step) -> bool {
        matches!(step, Step::Found(..) | Step::Follow(_) | Step::Stand)
    }

    #[test]
    fn slots_are_shared_without_a_gap() {
        assert_eq!((slots_of(0, 3), slots_of(1, 3), slots_of(2, 3)), ((0, 5_460), (5_461, 10_921), (10_922, 16_383)));
        for shards in 3..=9 {
            let held: u32 = (0..shards).map(|shard| slots_of(shard, shards)).map(|(a, b)| u32::from(b - a) + 1).sum();
            assert_eq!(held, u32::from(SLOTS));
        }
    }

    #[test]
    fn nobody_takes_slots_before_everybody_is_heard_and_knows_everybody() {
        let mut world = World { knows: vec![vec![true; SIZE]; SIZE], ..World::new() };
        assert_eq!(tend(&world.view(1)), [Step::Found(5_461, 10_921)]);
        assert_eq!(tend(&world.view(4)), [], "it waits for the shards");
        world.members[5].2 = false;
        assert_eq!(tend(&world.view(1)), [], "the silent one may have data");
        world.members[5].2 = true;
        world.knows[5][2] = false;
        assert_eq!(tend(&world.view(1)), []);
        world.knows[5][2] = true;
        world.members[5].1 = 1;
        assert_eq!(tend(&world.view(1)), [], "somebody has data");
    }

    #[test]
    fn addresses_that_have_changed_are_met_anew() {
        let world = World::founded();
        let mut view = world.view(0);
        assert_eq!(tend(&view), []);
        let moved = "10.0.0.77".parse().unwrap();
        view.members[4].as_mut().unwrap().ip = Some(moved);
        assert_eq!(tend(&view), [Step::Meet(moved)]);
        // Another node was found at the former address.
        let line = &mut view.members[0].as_mut().unwrap().nodes;
        line.iter_mut().find(|node| node.id == "n4").unwrap().ip = None;
        assert_eq!(tend(&view), [Step::Meet(moved)]);
    }

    #[test]
    fn a_replica_that_looks_for_its_primary_where_it_was_is_told_anew() {
        let mut view = World::founded().view(4);
        let own = view.members[4].as_mut().unwrap();
        own.link = Link::Never;
        own.looks_at = "10.0.0.77".parse().ok();
        assert_eq!(tend(&view), [Step::Follow("n1".to_owned())]);
        view.members[4].as_mut().unwrap().looks_at = ip(1);
        assert_eq!(tend(&view), [], "it is on its way");
        view.members[4].as_mut().unwrap().looks_at = None;
        view.members[1] = None;
        assert_eq!(tend(&view), [], "it isn't there");
    }

    #[test]
    fn an_empty_primary_waits_for_its_replica_and_then_follows_it() {
        let mut world = World::founded();
        world.lose(1);
        assert_eq!(
            tend(&world.view(1)).iter().filter(|step| is_given(step)).count(),
            0,
            "its slots are another's to take"
        );
        let slots = std::mem::take(&mut world.lost[0].slots);
        world.members[4].0 = Node { slots, replica_of: None, ..world.members[4].0.clone() };
        assert!(tend(&world.view(1)).contains(&Step::Follow("n4".to_owned())));
        world.settle(&[0, 1, 2, 3, 4, 5]);
        assert_eq!((world.replicas_of("n4"), world.lost.len()), (1, 0), "and the one that it was is forgotten");
        world.lost.push(Node { id: "n1".to_owned(), failed: true, ..Node::default() });
        assert_eq!(tend(&world.view(0)), [Step::Forget("n1".to_owned())], "heard of again, without its name");
        world.members[5].2 = false;
        assert_eq!(tend(&world.view(0)), [], "it may be the one that doesn't answer");
    }

    #[test]
    fn a_shard_that_lost_both_volumes_is_never_founded_again() {
        let mut world = World::founded();
        world.lose(1);
        world.lose(4);
        for me in 0..SIZE {
            assert!(!tend(&world.view(me)).iter().any(is_given), "{me}");
        }
        assert_eq!(primaries(&world.view(0).hosts, &world.view(0).members), Some(([0, 2].into(), 5_461)));
    }

    #[test]
    fn a_replica_with_a_copy_stands_when_its_primary_is_long_gone() {
        let mut world = World::founded();
        world.members[1].2 = false;
        let mut view = world.view(4);
        view.copy_of = Some("n1".to_owned());
        view.members[4].as_mut().unwrap().link = Link::Never;
        assert_eq!(tend(&view), [], "it may come back");
        view.primary_away_for = LONG;
        assert_eq!(tend(&view), [Step::Stand]);
        assert_eq!(tend(&View { copy_of: Some("n2".to_owned()), ..view }), [], "the copy is another shard's");
    }

    #[test]
    fn a_primary_that_comes_back_gives_way_to_a_replica_that_was_in_step() {
        let mut members = World::founded().view(1).members;
        members[1] = None;
        assert_eq!(begin(Some("n1"), &members, Duration::ZERO), Begin::GivingWay);
        assert_eq!(begin(Some("n1"), &members, LONG), Begin::Now, "nobody could be elected");
        assert_eq!(begin(None, &members, Duration::ZERO), Begin::Now, "a new volume");
        members[4].as_mut().unwrap().link = Link::Never;
        assert_eq!(begin(Some("n1"), &members, Duration::ZERO), Begin::Now, "after a full restart");
    }

    #[test]
    fn the_one_that_heard_of_the_newest_election_is_believed() {
        let mut world = World::founded();
        let old = world.view(0).members[0].clone();
        let slots = std::mem::take(&mut world.members[1].0.slots);
        world.members[4].0 = Node { slots, replica_of: None, epoch: 9, ..world.members[4].0.clone() };
        let mut view = world.view(0);
        view.members[0] = old;
        assert_eq!(primaries(&view.hosts, &view.members), Some(([0, 2, 4].into(), 0)));
        assert_eq!(primaries(&view.hosts, &[const { None }; SIZE]), None);
    }

    fn orders() -> impl Strategy<Value = Vec<usize>> {
        Just((0..SIZE).collect::<Vec<_>>()).prop_shuffle()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn new_members_found_a_cluster_in_any_order(order in orders(), lags: bool) {
            let mut world = World { lags, ..World::new() };
            world.settle(&order);
            for shard in 0..SIZE / 2 {
                prop_assert_eq!(&world.members[shard].0.slots, &vec![slots_of(shard, SIZE / 2)]);
                prop_assert_eq!(world.replicas_of(&format!("n{shard}")), 1);
            }
        }

        #[test]
        fn lost_replicas_find_the_shards_that_lack_one(
            order in orders(), lost in any::<[bool; 3]>(), lags: bool, misplaced in 0..3usize,
        ) {
            let mut world = World { lags, ..World::founded() };
            world.members[3].0.replica_of = Some(format!("n{misplaced}"));
            for (shard, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
                world.lose(shard + SIZE / 2);
            }
            world.settle(&order);
            for shard in 0..SIZE / 2 {
                prop_assert_eq!(world.replicas_of(&format!("n{shard}")), 1);
            }
            prop_assert!(world.lost.is_empty());
        }

        #[test]
        fn no_slot_is_given_out_where_there_was_a_cluster(
            emptied in any::<[bool; SIZE]>(), answers in any::<[bool; SIZE]>(), me in 0..SIZE,
        ) {
            prop_assume!(emptied.iter().any(|emptied| !emptied));
            let mut world = World::founded();
            for number in 0..SIZE {
                if emptied[number] {
                    world.lose(number);
                }
                world.members[number].2 = answers[number];
            }
            let steps = tend(&world.view(me));
            prop_assert!(!steps.iter().any(|step| matches!(step, Step::Found(..))), "{:?}", steps);
            let (own, keys, _) = &world.members[me];
            if !own.slots.is_empty() || (*keys > 0 && own.replica_of.is_none()) {
                prop_assert!(!steps.iter().any(|step| matches!(step, Step::Follow(_))), "{:?}", steps);
            }
        }
    }
}
