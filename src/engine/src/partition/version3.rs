//! What snapshots of version 3 hold, and how it becomes what is known now.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;

use super::{Counts, Learned, Model, State};
use crate::anomaly::SeriesDetector;
use crate::config::PartitionConfig;
use crate::entry::EntryId;
use crate::governor::Governor;
use crate::learner::{ClassifierOf3, RegressionOf4};
use crate::meta::Meta;
use crate::pattern::Patterns;
use crate::random::Random;
use crate::recent::RecentOf3;
use crate::rocket::Rocket;
use crate::schema::SchemaOf4;
use crate::score::Score;
use crate::vitals::Vitals;

/// A state of version 3, which knew no event beyond the horizon and whose classifier knew nothing of series.
#[derive(Deserialize)]
pub struct StateOf3 {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: RecentOf3,
    learned: LearnedOf3,
    meta: Meta,
    vitals: Vitals,
}

#[derive(Deserialize)]
struct LearnedOf3 {
    schema: SchemaOf4,
    classes: Vec<SmolStr>,
    class_of: BTreeMap<SmolStr, u32>,
    experiences: u64,
    model: ModelOf3,
}

#[derive(Deserialize)]
enum ModelOf3 {
    Classification(Box<ClassifierOf3>),
    Regression(Box<RegressionOf4>),
    Patterns(Box<Patterns>, Random, Box<SeriesDetector>),
    Governed(Box<Governor>),
    TimeSeriesClassification(Box<Rocket>),
}

impl From<LearnedOf3> for Learned {
    fn from(old: LearnedOf3) -> Self {
        let LearnedOf3 { schema, classes, class_of, experiences, model } = old;
        let model = match model {
            ModelOf3::Classification(model) => Model::Classification(Box::new((*model).into())),
            ModelOf3::Regression(model) => Model::Regression(Box::new((*model).into())),
            ModelOf3::Patterns(model, random, detector) => Model::Patterns(model, random, detector),
            ModelOf3::Governed(model) => Model::Governed(model),
            ModelOf3::TimeSeriesClassification(model) => Model::TimeSeriesClassification(model),
        };
        Self { schema: schema.into(), classes, class_of, experiences, model }
    }
}

impl From<StateOf3> for State {
    fn from(old: StateOf3) -> Self {
        let StateOf3 { config, position, counts, score, recent, learned, meta, vitals } = old;
        Self { config, position, counts, score, recent: recent.into(), learned: learned.into(), meta, vitals }
    }
}
