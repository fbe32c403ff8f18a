//! What snapshots of version 1 hold, and how it becomes what is known now.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;

use super::version2::RecentOf2;
use super::{Counts, Learned, Model, State};
use crate::config::PartitionConfig;
use crate::entry::EntryId;
use crate::learner::{ClassifierOf1, RegressionOf4};
use crate::meta::Meta;
use crate::pattern::PatternsOf2;
use crate::random::Random;
use crate::schema::SchemaOf4;
use crate::score::Score;
use crate::vitals::Vitals;

/// A state of version 1, which knew neither meta-learning nor vitals and whose classifier had fewer members.
#[derive(Deserialize)]
pub struct StateOf1 {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: RecentOf2,
    learned: LearnedOf1,
}

#[derive(Deserialize)]
struct LearnedOf1 {
    schema: SchemaOf4,
    classes: Vec<SmolStr>,
    class_of: BTreeMap<SmolStr, u32>,
    experiences: u64,
    model: ModelOf1,
}

#[derive(Deserialize)]
enum ModelOf1 {
    Classification(Box<ClassifierOf1>),
    Regression(Box<RegressionOf4>),
    Patterns(Box<PatternsOf2>, Random),
}

impl From<LearnedOf1> for Learned {
    fn from(old: LearnedOf1) -> Self {
        let LearnedOf1 { schema, classes, class_of, experiences, model } = old;
        let model = match model {
            ModelOf1::Classification(model) => Model::Classification(Box::new((*model).into())),
            ModelOf1::Regression(model) => Model::Regression(Box::new((*model).into())),
            ModelOf1::Patterns(model, random) => Model::Patterns(Box::new((*model).into()), random, Box::default()),
        };
        Self { schema: schema.into(), classes, class_of, experiences, model }
    }
}

impl From<StateOf1> for State {
    fn from(old: StateOf1) -> Self {
        let StateOf1 { config, position, counts, score, recent, learned } = old;
        let meta = Meta::new(config.task);
        let (recent, learned, vitals) = (recent.into(), learned.into(), Vitals::default());
        Self { config, position, counts, score, recent, learned, meta, vitals }
    }
}
