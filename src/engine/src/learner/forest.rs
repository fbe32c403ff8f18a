//! An adaptive random forest: trees on differently weighted events and random features, each with a detector that begins a
//! new tree beside it on a warning and puts it in its place on a drift (Gomes et al., Machine Learning 106, 2017).

use serde::{Deserialize, Serialize};

use super::adwin::Adwin;
use super::tree::{Favourites, Scratch, Tree};
use crate::random::Random;

/// Trees of a forest.
const TREES: usize = 10;
/// Chance of a false warning and of a false drift.
const WARNING: f64 = 0.01;
const DRIFT: f64 = 0.001;
/// Mean weight of an event for a tree.
const EVENT: f32 = 6.0;
/// The trees that can speak for all.
const LEADERS: usize = 3;
/// A leaf knows one class only when it has this weight, a hundred events, and of the others no more than this share, nor than
/// twenty events: an old leaf that errs is found out as soon as a young one.
const KNOWN_WEIGHT: f32 = 100.0 * EVENT;
const OTHERS_SHARE: f32 = 0.001;
const OTHERS_WEIGHT: f32 = 20.0 * EVENT;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    tree: Tree,
    background: Option<Tree>,
    warning: Adwin,
    drift: Adwin,
}

impl Member {
    fn new() -> Self {
        Self { tree: Tree::default(), background: None, warning: Adwin::new(WARNING), drift: Adwin::new(DRIFT) }
    }
}

/// A forest of [`TREES`] trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Forest {
    members: Vec<Member>,
}

/// A forest as it is stored.
#[derive(Deserialize)]
struct Stored {
    members: Vec<Member>,
}

impl TryFrom<Stored> for Forest {
    type Error = &'static str;

    fn try_from(Stored { members }: Stored) -> Result<Self, Self::Error> {
        if members.len() == TREES { Ok(Self { members }) } else { Err("a forest has another number of trees") }
    }
}

impl Forest {
    pub fn new() -> Self {
        Self { members: (0..TREES).map(|_| Member::new()).collect() }
    }

    /// Shares over classes, each tree by its recent accuracy; `favourites` says what each tree thinks.
    pub fn shares(
        &self,
        row: &[f32],
        classes: usize,
        shares: &mut Vec<f64>,
        favourites: &mut Vec<Favourites>,
        scratch: &mut Scratch,
    ) {
        shares.clear();
        shares.resize(classes, 1e-3 / classes.max(1) as f64);
        favourites.clear();
        scratch.beliefs.of(row, self.trees::<TREES>());
        for (number, member) in self.members.iter().enumerate() {
            let right = 1.0 - member.drift.mean();
            let scale = (right * right) * (right * right) + 1e-6;
            favourites.push(member.tree.vote(&scratch.beliefs, number, scale, shares));
        }
        let sum: f64 = shares.iter().sum();
        for share in shares.iter_mut() {
            *share /= sum;
        }
    }

    /// The first `N` trees.
    fn trees<const N: usize>(&self) -> [&Tree; N] {
        const { assert!(N <= TREES) }
        std::array::from_fn(|number| &self.members[number].tree)
    }

    /// Whether the leading trees know next to nothing but one class, the same one, where a row belongs; then shares over
    /// classes by what they have seen there.
    pub fn is_sure(&self, row: &[f32], classes: usize, shares: &mut Vec<f64>) -> bool {
        shares.clear();
        shares.resize(classes, 0.0);
        let mut only = None;
        let leaders = self.trees::<LEADERS>();
        for (tree, leaf) in leaders.into_iter().zip(Tree::find(leaders, row)) {
            let (counts, weight) = tree.counts(leaf);
            let others_max = (OTHERS_SHARE * weight).min(OTHERS_WEIGHT);
            let class = counts.iter().take(classes).position(|count| weight - count <= others_max);
            if weight < KNOWN_WEIGHT || class.is_none() || only.is_some_and(|only| class != only) {
                return false;
            }
            only = Some(class);
            for (class, share) in shares.iter_mut().enumerate() {
                // Half an event more of each class, so that none is impossible (Krichevsky and Trofimov, 1981).
                let count = counts.get(class).copied().unwrap_or(0.0) + EVENT / 2.0;
                *share += f64::from(count / (weight + EVENT / 2.0 * classes as f32)) / LEADERS as f64;
            }
        }
        only.is_some()
    }

    /// Learns the row that [`Forest::shares`] was asked about last; the trees' detectors only if `watch`.
    pub fn learn(
        &mut self,
        row: &[f32],
        class: usize,
        watch: bool,
        favourites: &[Favourites],
        random: &mut Random,
        scratch: &mut Scratch,
    ) {
        for (member, favourite) in self.members.iter_mut().zip(favourites) {
            let wrong = f64::from(u8::from(favourite.vote != Some(class)));
            let weight = random.poisson6();
            if weight > 0 {
                member.tree.learn(row, class, weight as f32, Some(favourite), random, scratch);
                if let Some(background) = &mut member.background {
                    background.learn(row, class, weight as f32, None, random, scratch);
                }
            }
            if !watch {
                continue;
            }
            let before = member.warning.mean();
            if member.warning.insert(wrong) && member.warning.mean() > before {
                member.background = Some(Tree::default());
            }
            let before = member.drift.mean();
            if member.drift.insert(wrong) && member.drift.mean() > before {
                *member = Member { tree: member.background.take().unwrap_or_default(), ..Member::new() };
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.members
            .iter()
            .map(|member| member.tree.bytes() + member.background.as_ref().map_or(0, Tree::bytes) + 4_096)
            .sum()
    }
}
