//! A Hoeffding tree: it splits a leaf once the best split is better than the second best beyond chance
//! (Domingos and Hulten, "Mining High-Speed Data Streams", KDD 2000), with Gaussian observers of the numbers and a choice
//! between majority and naive Bayes in each leaf (Holmes, Kirkby and Pfahringer, "Stress-Testing Hoeffding Trees", 2005).

use std::borrow::Cow;
use std::f64::consts::LOG2_E;
use std::iter::repeat_n;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

use super::gauss::{Gauss, LogDensity, phi, phi_all};
use crate::math::{exp_all, larger, ln, ln_all, smaller};
use crate::random::Random;
use crate::schema::SLOTS_MAX;

/// Weight that a leaf sees between two looks for a split.
const GRACE: f32 = 60.0;
/// Chance of a wrong split.
const DELTA: f64 = 0.01;
/// Below this bound the best two are as good as each other: after a weight of about 230 of two classes. An early split costs a
/// forest less than a late one.
const TIE: f64 = 0.1;
/// Thresholds tried per feature.
const CANDIDATES: usize = 10;
/// Nodes of a tree; a full tree goes on learning in its leaves.
const NODES_MAX: usize = 1_023;
/// Bytes of a tree's observers: many classes make fewer leaves.
const BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Node {
    Split { feature: u16, threshold: f32, left: u32, right: u32 },
    Leaf(Box<Leaf>),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "StoredLeaf")]
struct Leaf {
    counts: Vec<f32>,
    weight: f32,
    /// The weight from which on [`GRACE`] is waited for the next look for a split.
    looked_at: f32,
    majority_right: f32,
    bayes_right: f32,
    /// The random subset of the features that this leaf looks at.
    observed: Vec<Observed>,
    /// The classes along a feature, a feature after another: in one piece, as every event goes through all of them.
    spreads: Vec<Gauss>,
    /// The classes that each feature has room for.
    room: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Observed {
    feature: u16,
    min: f32,
    max: f32,
    /// The classes that may have been seen with it; those beyond never were.
    classes: usize,
}

/// A leaf as it is stored: each feature with its classes.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Leaf")]
struct StoredLeaf<'a> {
    counts: Cow<'a, [f32]>,
    weight: f32,
    looked_at: f32,
    majority_right: f32,
    bayes_right: f32,
    observed: Vec<(u16, f32, f32, Cow<'a, [Gauss]>)>,
}

impl Serialize for Leaf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { counts, weight, looked_at, majority_right, bayes_right, .. } = self;
        let observed = self.observed.iter().zip(self.spreads());
        StoredLeaf {
            counts: counts.into(),
            weight: *weight,
            looked_at: *looked_at,
            majority_right: *majority_right,
            bayes_right: *bayes_right,
            observed: observed
                .map(|(Observed { feature, min, max, .. }, classes)| (*feature, *min, *max, classes.into()))
                .collect(),
        }
        .serialize(serializer)
    }
}

impl TryFrom<StoredLeaf<'_>> for Leaf {
    type Error = &'static str;

    fn try_from(stored: StoredLeaf<'_>) -> Result<Self, Self::Error> {
        let StoredLeaf { counts, weight, looked_at, majority_right, bayes_right, observed } = stored;
        let room = observed.iter().map(|(.., classes)| classes.len()).max().unwrap_or(0);
        if room > counts.len() || observed.len() > drawn_of(SLOTS_MAX) {
            return Err("a leaf knows more classes or features than there are");
        }
        let mut spreads = Vec::with_capacity(room * observed.len());
        for (.., classes) in &observed {
            spreads.extend(classes.iter().copied().chain(repeat_n(Gauss::default(), room - classes.len())));
        }
        let observed = observed.into_iter().map(|(feature, min, max, classes)| Observed {
            feature,
            min,
            max,
            classes: classes.len(),
        });
        let (counts, observed) = (counts.into_owned(), observed.collect());
        Ok(Self { counts, weight, looked_at, majority_right, bayes_right, observed, spreads, room })
    }
}

/// What a leaf thinks of a row, kept between the vote and the lesson, which asks the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Favourites {
    /// The class that the tree voted for.
    pub vote: Option<usize>,
    leaf: usize,
    majority: Option<usize>,
    bayes: Option<usize>,
}

/// Room for what trees work out; reused.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub beliefs: Beliefs,
    trial: Trial,
}

/// What the naive Bayes of some leaves makes of a row: those of several trees at once, as the processor has time for many
/// logarithms while it waits for one.
#[derive(Clone, Debug, Default)]
pub struct Beliefs {
    /// By leaf: its node, and where its classes begin and end in the rest; of a leaf that knows one class only there is nothing.
    leaves: Vec<(usize, Range<usize>)>,
    densities: Vec<LogDensity>,
    /// Logarithms of the counts and of the products of variances.
    counts: Vec<f64>,
    variances: Vec<f64>,
    /// Shares by class, not normalised.
    shares: Vec<f64>,
}

impl Beliefs {
    /// Asks about a row a tree after another; answers are told by their number.
    pub fn of<const N: usize>(&mut self, row: &[f32], trees: [&Tree; N]) {
        let Self { leaves, densities, counts, variances, shares } = self;
        leaves.clear();
        densities.clear();
        counts.clear();
        for (tree, at) in trees.into_iter().zip(Tree::find(trees, row)) {
            let begin = densities.len();
            if let Some(Node::Leaf(leaf)) = tree.nodes.get(at)
                && leaf.is_mixed()
            {
                leaf.densities(row, densities);
                counts.extend(leaf.counts.iter().map(|count| f64::from(*count) + 1e-9));
            }
            leaves.push((at, begin..densities.len()));
        }
        variances.clear();
        variances.extend(densities.iter().map(LogDensity::variances));
        ln_all(counts);
        ln_all(variances);
        shares.clear();
        let logs = counts.iter().zip(variances);
        shares.extend(logs.zip(densities).map(|((count, variances), density)| count + density.sum(*variances)));
        for (_, classes) in leaves {
            let shares = &mut shares[classes.clone()];
            let top = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for share in shares {
                *share -= top;
            }
        }
        exp_all(shares);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Tree {
    nodes: Vec<Node>,
    /// The way on from each node: made of them.
    #[serde(skip_serializing)]
    ways: Vec<Way>,
}

/// The way on from a node. A leaf leads to itself, so that a step needs no branch, which the processor would have to guess, and
/// trees are gone down beside each other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Way {
    feature: u16,
    threshold: f32,
    /// The node on the left; that on the right is the next.
    left: u32,
}

impl Way {
    fn of(at: usize, node: &Node) -> Self {
        match *node {
            Node::Split { feature, threshold, left, .. } => Self { feature, threshold, left },
            // Nothing is above it.
            Node::Leaf(_) => Self { feature: 0, threshold: f32::INFINITY, left: at as u32 },
        }
    }
}

/// A tree as it is stored.
#[derive(Deserialize)]
struct Stored {
    nodes: Vec<Node>,
}

impl TryFrom<Stored> for Tree {
    type Error = &'static str;

    /// A way down a tree ends: children come after their parents, two together.
    fn try_from(Stored { nodes }: Stored) -> Result<Self, Self::Error> {
        let is_sound = |(at, node): (usize, &Node)| match node {
            Node::Split { left, right, .. } => {
                let (left, right) = (*left as usize, *right as usize);
                at < left && left < right && right == left + 1 && right < nodes.len()
            }
            Node::Leaf(_) => true,
        };
        match !nodes.is_empty() && nodes.iter().enumerate().all(is_sound) {
            true => Ok(Self::of(nodes)),
            false => Err("a tree's nodes don't fit each other"),
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::of(vec![Node::Leaf(Box::default())])
    }
}

impl Tree {
    fn of(nodes: Vec<Node>) -> Self {
        let ways = nodes.iter().enumerate().map(|(at, node)| Way::of(at, node)).collect();
        Self { nodes, ways }
    }

    /// The node that a row comes to next.
    #[inline]
    fn step(&self, at: usize, row: &[f32]) -> usize {
        let Some(Way { feature, threshold, left }) = self.ways.get(at).copied() else { return at };
        // What is missing goes left: NaN is not above anything.
        let value = row.get(usize::from(feature)).copied().unwrap_or(f32::NAN);
        left as usize + usize::from(value > threshold)
    }

    /// The leaves that a row belongs to, in so many trees.
    pub fn find<const N: usize>(trees: [&Self; N], row: &[f32]) -> [usize; N] {
        let mut leaves = [0; N];
        loop {
            let mut moved = 0;
            for (at, tree) in leaves.iter_mut().zip(trees) {
                let next = tree.step(*at, row);
                moved |= *at ^ next;
                *at = next;
            }
            if moved == 0 {
                return leaves;
            }
        }
    }

    /// What a leaf has seen: the weight by class, and of all.
    pub fn counts(&self, leaf: usize) -> (&[f32], f32) {
        match self.nodes.get(leaf) {
            Some(Node::Leaf(leaf)) => (&leaf.counts, leaf.weight),
            Some(Node::Split { .. }) | None => (&[], 0.0),
        }
    }

    /// Adds the leaf's opinion, normalised to 1, times `scale`; returns the classes it favours. `number` is the tree's own in
    /// the beliefs.
    pub fn vote(&self, beliefs: &Beliefs, number: usize, scale: f64, shares: &mut [f64]) -> Favourites {
        let mut favourites = self.favourites(beliefs, number);
        let Some(Node::Leaf(leaf)) = self.nodes.get(favourites.leaf) else { return favourites };
        if leaf.weight <= 0.0 {
            return favourites;
        }
        let classes = beliefs.leaves[number].1.clone();
        if leaf.trusts_bayes() && !classes.is_empty() {
            add(shares, scale, beliefs.shares[classes].iter().copied());
            favourites.vote = favourites.bayes;
        } else {
            add(shares, scale, leaf.counts.iter().map(|count| f64::from(*count)));
            favourites.vote = favourites.majority;
        }
        favourites
    }

    /// Which classes a row's leaf favours.
    fn favourites(&self, beliefs: &Beliefs, number: usize) -> Favourites {
        let (leaf_at, classes) = beliefs.leaves[number].clone();
        let mut favourites = Favourites { leaf: leaf_at, ..Favourites::default() };
        if let Some(Node::Leaf(leaf)) = self.nodes.get(leaf_at)
            && leaf.weight > 0.0
        {
            favourites.majority = leaf.majority();
            favourites.bayes = best(&beliefs.shares[classes]).or(favourites.majority);
        }
        favourites
    }

    /// Learns a row of a class with a weight. `favourites` is what [`Tree::vote`] said of the same row, if it was asked
    /// since the last lesson.
    pub fn learn(
        &mut self,
        row: &[f32],
        class: usize,
        weight: f32,
        favourites: Option<&Favourites>,
        random: &mut Random,
        scratch: &mut Scratch,
    ) {
        let favourites = favourites.copied().unwrap_or_else(|| {
            scratch.beliefs.of(row, [&*self]);
            self.favourites(&scratch.beliefs, 0)
        });
        let at = favourites.leaf;
        let nodes = self.nodes.len();
        let Some(Node::Leaf(leaf)) = self.nodes.get_mut(at) else { return };
        let bytes = |classes: usize, features: usize| nodes / 2 * features * classes * size_of::<Gauss>();
        // Classes that come after the tree has grown would make each leaf of it grow again.
        let has_room = bytes(class + 1, leaf.observed.len()) <= 2 * BYTES_MAX;
        leaf.learn(row, class, weight, &favourites, has_room, random);
        let bytes = bytes(leaf.counts.len(), leaf.observed.len());
        let full = nodes + 2 > NODES_MAX || bytes > BYTES_MAX;
        if full || leaf.weight - leaf.looked_at < GRACE {
            return;
        }
        leaf.looked_at = leaf.weight;
        if let Some((feature, threshold, left, right)) = leaf.split(&mut scratch.trial) {
            let (left_at, right_at) = (self.nodes.len() as u32, self.nodes.len() as u32 + 1);
            self.nodes[at] = Node::Split { feature, threshold, left: left_at, right: right_at };
            self.nodes.push(Node::Leaf(Box::new(Leaf::begin(left))));
            self.nodes.push(Node::Leaf(Box::new(Leaf::begin(right))));
            self.ways[at] = Way::of(at, &self.nodes[at]);
            let new = nodes..self.nodes.len();
            self.ways.extend(new.map(|at| Way::of(at, &self.nodes[at])));
        }
    }

    /// Bytes that the tree holds, about.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + size_of::<Way>())
            + self
                .nodes
                .iter()
                .map(|node| match node {
                    Node::Leaf(leaf) => {
                        size_of::<Leaf>()
                            + leaf.spreads.len() * size_of::<Gauss>()
                            + leaf.observed.len() * size_of::<Observed>()
                    }
                    Node::Split { .. } => 0,
                })
                .sum::<usize>()
    }
}

impl Leaf {
    fn begin(counts: Vec<f32>) -> Self {
        let weight = counts.iter().sum();
        Self { counts, weight, looked_at: weight, ..Self::default() }
    }

    /// Whether it has seen more than one class: of one alone there is nothing to tell.
    fn is_mixed(&self) -> bool {
        self.counts.iter().map(|count| u32::from(*count > 0.0)).sum::<u32>() > 1
    }

    fn trusts_bayes(&self) -> bool {
        self.bayes_right > self.majority_right
    }

    /// The class with the largest count, the first of equals.
    fn majority(&self) -> Option<usize> {
        let mut top: Option<(usize, f32)> = None;
        for (class, count) in self.counts.iter().enumerate() {
            if top.is_none_or(|(_, most)| *count > most) {
                top = Some((class, *count));
            }
        }
        top.map(|(class, _)| class)
    }

    /// Learns a row; without room, of classes that were never seen here only how often they come.
    fn learn(
        &mut self,
        row: &[f32],
        class: usize,
        weight: f32,
        favourites: &Favourites,
        has_room: bool,
        random: &mut Random,
    ) {
        if self.observed.len() < drawn_of(row.len()) {
            self.choose(row.len(), random);
        }
        if self.weight > 0.0 {
            self.majority_right += if favourites.majority == Some(class) { weight } else { 0.0 };
            self.bayes_right += if favourites.bayes == Some(class) { weight } else { 0.0 };
        }
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0.0);
        }
        self.counts[class] += weight;
        self.weight += weight;
        for place in 0..self.observed.len() {
            let observed = &mut self.observed[place];
            let value = row.get(usize::from(observed.feature)).copied().unwrap_or(f32::NAN);
            if value.is_nan() {
                continue;
            }
            observed.min = smaller(observed.min, value);
            observed.max = larger(observed.max, value);
            if observed.classes <= class {
                if !has_room {
                    continue;
                }
                observed.classes = class + 1;
                // Not before, so that it is as large as it is made of what is stored.
                if self.room <= class {
                    self.make_room(class + 1);
                }
            }
            self.spreads[place * self.room + class].insert(value, weight);
        }
    }

    /// Makes room for so many classes along each feature.
    fn make_room(&mut self, classes: usize) {
        let mut spreads = vec![Gauss::default(); self.observed.len() * classes];
        if self.room > 0 {
            for (wide, narrow) in spreads.chunks_mut(classes).zip(self.spreads.chunks(self.room)) {
                wide[..self.room].copy_from_slice(narrow);
            }
        }
        (self.spreads, self.room) = (spreads, classes);
    }

    /// The classes along each feature, as far as they may have been seen with it.
    fn spreads(&self) -> impl Iterator<Item = &[Gauss]> {
        let of = |(place, observed): (usize, &Observed)| {
            let begin = place * self.room;
            &self.spreads[begin..begin + observed.classes]
        };
        self.observed.iter().enumerate().map(of)
    }

    /// Draws the features: the root of their number and one more, at least 60 % of few.
    fn choose(&mut self, features: usize, random: &mut Random) {
        let known = |feature: u16| self.observed.binary_search_by_key(&feature, |observed| observed.feature).is_ok();
        let mut drawn: Vec<u16> = (0..features as u16).filter(|feature| !known(*feature)).collect();
        let count = drawn_of(features) - self.observed.len();
        for place in 0..count {
            let other = place + random.below(drawn.len() - place);
            drawn.swap(place, other);
        }
        drawn.truncate(count);
        for feature in drawn {
            let place = self.observed.partition_point(|observed| observed.feature < feature);
            let begun = Observed { feature, min: f32::INFINITY, max: f32::NEG_INFINITY, classes: 0 };
            self.observed.insert(place, begun);
            let at = place * self.room;
            self.spreads.splice(at..at, repeat_n(Gauss::default(), self.room));
        }
    }

    /// Appends the log-density of the row in each class.
    fn densities(&self, row: &[f32], densities: &mut Vec<LogDensity>) {
        let begin = densities.len();
        densities.resize(begin + self.counts.len(), LogDensity::new());
        for (observed, classes) in self.observed.iter().zip(self.spreads()) {
            let value = row.get(usize::from(observed.feature)).copied().unwrap_or(f32::NAN);
            if value.is_nan() {
                continue;
            }
            let floor = Gauss::floor(observed.max - observed.min);
            for (density, gauss) in densities[begin..].iter_mut().zip(classes) {
                density.insert(gauss, value, floor);
            }
        }
    }

    /// Puts the next look off on the way to the weight that makes the bound fall below `ahead`, what the best split is ahead by
    /// (García-Martín et al., "Hoeffding Trees with nmin adaptation", DSAA 2018): by a quarter, as it can get further ahead.
    fn wait(&mut self, range: f64, ahead: f64) {
        let ahead = ahead.max(TIE);
        let enough = range * range * ln(1.0 / DELTA) / (2.0 * ahead * ahead);
        let quarter = (0.75 * f64::from(self.weight) + 0.25 * enough) as f32;
        self.looked_at = larger(self.looked_at, quarter - GRACE);
    }

    /// The split that is better than the second best beyond chance, with the classes on both sides.
    fn split(&mut self, trial: &mut Trial) -> Option<(u16, f32, Vec<f32>, Vec<f32>)> {
        let present = self.counts.iter().filter(|count| **count > 0.0).count();
        if present < 2 {
            return None;
        }
        let before = entropy(self.counts.iter().map(|count| f64::from(*count)));
        let range = (ln(present as f64) * LOG2_E).max(1.0);
        let bound = (range * range * ln(1.0 / DELTA) / (2.0 * f64::from(self.weight))).sqrt();
        // No split gains more than all there is.
        if before < 1e-3 || (before < bound && bound > TIE) {
            self.wait(range, before);
            return None;
        }
        trial.begin(&self.counts);
        for (observed, classes) in self.observed.iter().zip(self.spreads()) {
            let step = (observed.max - observed.min) / (CANDIDATES + 1) as f32;
            if step.is_finite() && step > 0.0 {
                let thresholds = std::array::from_fn(|place| observed.min + step * (place + 1) as f32);
                trial.features.push((observed.feature, thresholds));
                trial.classes.extend(observed.spread(classes, &self.counts).filter(|class| class.count > 0.0));
            }
        }
        trial.run();
        let mut best: Option<(f64, u16, f32)> = None;
        // Not to split at all is a candidate of no gain.
        let mut second = 0.0;
        for ((feature, thresholds), entropies) in trial.features.iter().zip(&trial.entropies) {
            let mut top = (0.0, 0.0f32);
            for (threshold, after) in thresholds.iter().zip(entropies) {
                let gain = before - after;
                if gain > top.0 {
                    top = (gain, *threshold);
                }
            }
            match best {
                Some((gain, _, _)) if top.0 <= gain => second = f64::max(second, top.0),
                _ => {
                    second = best.map_or(second, |(gain, _, _)| f64::max(second, gain));
                    best = Some((top.0, *feature, top.1));
                }
            }
        }
        let (gain, feature, threshold) = best?;
        if gain < 1e-3 || (gain - second < bound && bound > TIE) {
            self.wait(range, gain - second);
            return None;
        }
        let (observed, classes) =
            self.observed.iter().zip(self.spreads()).find(|(observed, _)| observed.feature == feature)?;
        let left: Vec<f32> =
            observed.spread(classes, &self.counts).map(|class| class.left_of(threshold) as f32).collect();
        let right = self.counts.iter().zip(&left).map(|(all, left)| (all - left).max(0.0)).collect();
        Some((feature, threshold, left, right))
    }
}

/// How many of the features a leaf looks at.
fn drawn_of(features: usize) -> usize {
    let count = ((features as f64).sqrt() + 1.0).round() as usize;
    count.max((features.min(10) * 3).div_ceil(5)).min(features)
}

/// How one class is spread along a feature.
#[derive(Clone, Debug)]
struct Spread {
    /// Weight of the class in the leaf.
    count: f64,
    mean: f32,
    /// None where the class was never seen with this feature: all of it goes left, as what is missing does.
    deviation: Option<f64>,
}

impl Spread {
    /// Where a threshold is, in deviations from the mean.
    fn position(&self, threshold: f32) -> f64 {
        self.deviation.map_or(0.0, |deviation| f64::from(threshold - self.mean) / deviation)
    }

    /// Weight on the left of where so much of a normal distribution is.
    fn left(&self, share: f64) -> f64 {
        if self.deviation.is_some() { self.count * share } else { self.count }
    }

    fn left_of(&self, threshold: f32) -> f64 {
        self.left(phi(self.position(threshold)))
    }
}

impl Observed {
    fn spread(&self, classes: &[Gauss], counts: &[f32]) -> impl Iterator<Item = Spread> {
        let floor = Gauss::floor(self.max - self.min);
        counts.iter().enumerate().map(move |(class, count)| {
            let gauss = classes.get(class).filter(|gauss| gauss.weight() > 0.0);
            Spread {
                count: f64::from(*count),
                mean: gauss.map_or(0.0, Gauss::mean),
                deviation: gauss.map(|gauss| gauss.deviation(floor)),
            }
        })
    }
}

/// What splits of a leaf would make of it: all thresholds of all features at once, as the processor has time for many
/// logarithms while it waits for one. At most 28 MB: of the most features 65 are drawn, and there are 1,000 classes.
#[derive(Clone, Debug, Default)]
struct Trial {
    /// The features that are tried, with their thresholds.
    features: Vec<(u16, [f32; CANDIDATES])>,
    /// By feature: the classes that there are in the leaf.
    classes: Vec<Spread>,
    /// Their number and their weight.
    present: usize,
    all: f64,
    /// By feature and class: the shares on the left of the thresholds.
    shares: Vec<f64>,
    /// By feature and class: the weights on the left and on the right of the thresholds, and their logarithms.
    sides: Vec<f64>,
    logs: Vec<f64>,
    /// By feature: the same of all classes.
    totals: Vec<f64>,
    total_logs: Vec<f64>,
    /// By feature: the mean entropy of both sides of each threshold; infinite when a side has next to nothing on it, which
    /// explains nothing.
    entropies: Vec<[f64; CANDIDATES]>,
}

impl Trial {
    fn begin(&mut self, counts: &[f32]) {
        let present = counts.iter().filter(|count| **count > 0.0);
        self.present = present.clone().count();
        self.all = present.map(|count| f64::from(*count)).sum();
        self.features.clear();
        self.classes.clear();
    }

    fn run(&mut self) {
        const BOTH: usize = 2 * CANDIDATES;
        let Self { features, classes, present, all, shares, sides, logs, totals, total_logs, entropies } = self;
        let (present, all) = (*present, *all);
        shares.clear();
        for ((_, thresholds), classes) in features.iter().zip(classes.chunks(present)) {
            shares.extend(classes.iter().flat_map(|class| thresholds.map(|threshold| class.position(threshold))));
        }
        phi_all(shares);
        sides.clear();
        for (class, shares) in classes.iter().zip(shares.as_chunks::<CANDIDATES>().0) {
            let left = shares.map(|share| class.left(share));
            sides.extend(left);
            sides.extend(left.map(|left| (class.count - left).max(0.0)));
        }
        logs.clone_from(sides);
        ln_all(logs);
        totals.clear();
        for sides in sides.chunks(present * BOTH) {
            let mut left = [0.0; CANDIDATES];
            for sides in sides.as_chunks::<BOTH>().0 {
                for place in 0..CANDIDATES {
                    left[place] += sides[place];
                }
            }
            totals.extend(left);
            totals.extend(left.map(|left| all - left));
        }
        total_logs.clone_from(totals);
        ln_all(total_logs);
        entropies.clear();
        let per_feature = sides.chunks(present * BOTH).zip(logs.chunks(present * BOTH));
        let totals = totals.as_chunks::<BOTH>().0.iter().zip(total_logs.as_chunks::<BOTH>().0);
        for ((sides, logs), (totals, total_logs)) in per_feature.zip(totals) {
            let mut inner = [0.0; CANDIDATES];
            for (sides, logs) in sides.as_chunks::<BOTH>().0.iter().zip(logs.as_chunks::<BOTH>().0) {
                for place in 0..CANDIDATES {
                    let right = place + CANDIDATES;
                    inner[place] += sides[place] * logs[place] + sides[right] * logs[right];
                }
            }
            entropies.push(std::array::from_fn(|place| {
                let (left, right) = (totals[place], totals[place + CANDIDATES]);
                if left < 0.01 * all || right < 0.01 * all {
                    f64::INFINITY
                } else {
                    let outer = left * total_logs[place] + right * total_logs[place + CANDIDATES];
                    (outer - inner[place]) / all * LOG2_E
                }
            }));
        }
    }
}

fn entropy(counts: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut inner) = (0.0, 0.0);
    for count in counts {
        if count > 0.0 {
            sum += count;
            inner += count * ln(count);
        }
    }
    if sum > 0.0 { (ln(sum) - inner / sum) * LOG2_E } else { 0.0 }
}

/// Adds votes, normalised to 1, times `scale`.
fn add(shares: &mut [f64], scale: f64, votes: impl Iterator<Item = f64> + Clone) {
    let sum: f64 = votes.clone().sum();
    if sum > 0.0 {
        for (share, vote) in shares.iter_mut().zip(votes) {
            *share += scale * vote / sum;
        }
    }
}

/// The place of the largest, the first of equals.
pub fn best(shares: &[f64]) -> Option<usize> {
    let mut top: Option<(usize, f64)> = None;
    for (place, share) in shares.iter().enumerate() {
        if top.is_none_or(|(_, most)| *share > most) {
            top = Some((place, *share));
        }
    }
    top.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_tree_without_an_end_is_refused() {
        let leaf = || Node::Leaf(Box::default());
        let split = |left, right| Node::Split { feature: 0, threshold: 0.5, left, right };
        let stored = |nodes| postcard::from_bytes::<Tree>(&postcard::to_stdvec(&Tree::of(nodes)).unwrap());
        assert!(stored(vec![split(1, 2), leaf(), leaf()]).is_ok());
        assert!(stored(vec![split(0, 1), leaf()]).is_err(), "it leads to itself");
        assert!(stored(vec![split(1, 2), leaf()]).is_err(), "a child is missing");
        assert!(stored(vec![]).is_err());
    }

    #[test]
    fn classes_that_come_when_a_tree_has_grown_keep_it_bounded() {
        let (mut tree, mut random, mut scratch) = (Tree::default(), Random::new(3), Scratch::default());
        let mut row = vec![0.0; 25];
        let lesson = |tree: &mut Tree, random: &mut Random, class: usize, row: &mut [f32], scratch: &mut Scratch| {
            row.iter_mut().for_each(|value| *value = random.unit() as f32);
            tree.learn(row, class, 1.0, None, random, scratch);
        };
        for _ in 0..60_000 {
            let class = usize::from(random.unit() > 0.5);
            lesson(&mut tree, &mut random, class, &mut row, &mut scratch);
            // Learnable, so that it grows.
            row[0] = class as f32;
        }
        let grown = tree.bytes();
        for class in 2..1_000 {
            for _ in 0..20 {
                lesson(&mut tree, &mut random, class, &mut row, &mut scratch);
            }
        }
        assert!(tree.bytes() <= grown + 2 * BYTES_MAX, "{grown} bytes have become {}", tree.bytes());
    }

    #[test]
    fn a_threshold_between_two_classes_is_found() {
        let (mut tree, mut random, mut scratch) = (Tree::default(), Random::new(3), Scratch::default());
        for _ in 0..2_000 {
            let row = [random.unit() as f32, random.unit() as f32];
            tree.learn(&row, usize::from(row[1] > 0.6), 1.0, None, &mut random, &mut scratch);
        }
        assert!(tree.nodes.len() > 1);
        let mut right = 0;
        for _ in 0..500 {
            let row = [random.unit() as f32, random.unit() as f32];
            scratch.beliefs.of(&row, [&tree]);
            let vote = tree.vote(&scratch.beliefs, 0, 1.0, &mut [0.0; 2]).vote;
            right += usize::from(vote == Some(usize::from(row[1] > 0.6)));
        }
        assert!(right > 470, "{right}");
        assert!((phi(0.0) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let (mut tree, mut random, mut scratch) = (Tree::default(), Random::new(3), Scratch::default());
        for _ in 0..200_000 {
            let row = [random.unit() as f32, random.unit() as f32];
            let class = usize::from((row[0] * 40.0) as u32 % 2 == (row[1] * 40.0) as u32 % 2);
            tree.learn(&row, class, 3.0, None, &mut random, &mut scratch);
        }
        assert!(tree.nodes.len() <= NODES_MAX);
    }
}
