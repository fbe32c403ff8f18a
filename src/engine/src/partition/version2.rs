//! What snapshots of version 2 hold, and how it becomes what is known now.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use smol_str::SmolStr;

use super::{Counts, Learned, Model, State};
use crate::answer::EventRecord;
use crate::config::PartitionConfig;
use crate::entry::{EntryId, Input};
use crate::governor::GovernorOf2;
use crate::learner::{ClassifierOf3, RegressionOf4};
use crate::meta::Meta;
use crate::pattern::PatternsOf2;
use crate::random::Random;
use crate::recent::{Awaited, Recent, RecentOf3, Remembered};
use crate::schema::SchemaOf4;
use crate::score::Score;
use crate::vitals::Vitals;

/// A state of version 2: without an archive of patterns and a choice of rhythm and thresholds. It held every id twice, and
/// not how the mixture was when it predicted.
#[derive(Deserialize)]
pub struct StateOf2 {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: RecentOf2,
    learned: LearnedOf2,
    meta: Meta,
    vitals: Vitals,
}

/// The horizon of versions 1 and 2.
#[derive(Deserialize)]
pub struct RecentOf2 {
    order: VecDeque<String>,
    events: BTreeMap<String, RememberedOf2>,
    /// What follows from the others.
    _input_bytes: usize,
    _forgotten: usize,
}

#[derive(Deserialize)]
struct RememberedOf2 {
    record: EventRecord,
    input: Option<Input>,
}

#[derive(Deserialize)]
struct LearnedOf2 {
    schema: SchemaOf4,
    classes: Vec<SmolStr>,
    class_of: BTreeMap<SmolStr, u32>,
    experiences: u64,
    model: ModelOf2,
}

#[derive(Deserialize)]
enum ModelOf2 {
    Classification(Box<ClassifierOf3>),
    Regression(Box<RegressionOf4>),
    Patterns(Box<PatternsOf2>, Random),
    Governed(Box<GovernorOf2>),
}

impl From<RecentOf2> for Recent {
    fn from(old: RecentOf2) -> Self {
        let RecentOf2 { order, mut events, .. } = old;
        let remembered = |RememberedOf2 { record, input }| Remembered {
            record,
            awaited: input.map(|input| Awaited { input, shares: None }),
        };
        let mut take = |id: String| events.remove(&id).map(|event| (id, remembered(event)));
        RecentOf3::from(order.into_iter().filter_map(&mut take).collect::<Vec<_>>()).into()
    }
}

impl From<LearnedOf2> for Learned {
    fn from(old: LearnedOf2) -> Self {
        let LearnedOf2 { schema, classes, class_of, experiences, model } = old;
        let model = match model {
            ModelOf2::Classification(model) => Model::Classification(Box::new((*model).into())),
            ModelOf2::Regression(model) => Model::Regression(Box::new((*model).into())),
            ModelOf2::Patterns(model, random) => Model::Patterns(Box::new((*model).into()), random, Box::default()),
            ModelOf2::Governed(model) => Model::Governed(Box::new((*model).into())),
        };
        Self { schema: schema.into(), classes, class_of, experiences, model }
    }
}

impl From<StateOf2> for State {
    fn from(old: StateOf2) -> Self {
        let StateOf2 { config, position, counts, score, recent, learned, meta, vitals } = old;
        Self { config, position, counts, score, recent: recent.into(), learned: learned.into(), meta, vitals }
    }
}
