//! What snapshots of version 4 hold, and how it becomes what is known now.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;

use super::{Counts, Learned, Model, State};
use crate::anomaly::SeriesDetector;
use crate::config::PartitionConfig;
use crate::entry::EntryId;
use crate::governor::Governor;
use crate::learner::{Classifier, RegressionOf4};
use crate::meta::Meta;
use crate::pattern::Patterns;
use crate::random::Random;
use crate::recent::Recent;
use crate::rocket::Rocket;
use crate::schema::SchemaOf4;
use crate::score::Score;
use crate::vitals::Vitals;

/// A state of version 4, in which features and targets were counted from 0.
#[derive(Deserialize)]
pub struct StateOf4 {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: Recent,
    learned: LearnedOf4,
    meta: Meta,
    vitals: Vitals,
}

#[derive(Deserialize)]
struct LearnedOf4 {
    schema: SchemaOf4,
    classes: Vec<SmolStr>,
    class_of: BTreeMap<SmolStr, u32>,
    experiences: u64,
    model: ModelOf4,
}

#[derive(Deserialize)]
enum ModelOf4 {
    Classification(Box<Classifier>),
    Regression(Box<RegressionOf4>),
    Patterns(Box<Patterns>, Random, Box<SeriesDetector>),
    Governed(Box<Governor>),
    TimeSeriesClassification(Box<Rocket>),
}

impl From<LearnedOf4> for Learned {
    fn from(old: LearnedOf4) -> Self {
        let LearnedOf4 { schema, classes, class_of, experiences, model } = old;
        let model = match model {
            ModelOf4::Classification(model) => Model::Classification(model),
            ModelOf4::Regression(model) => Model::Regression(Box::new((*model).into())),
            ModelOf4::Patterns(model, random, detector) => Model::Patterns(model, random, detector),
            ModelOf4::Governed(model) => Model::Governed(model),
            ModelOf4::TimeSeriesClassification(model) => Model::TimeSeriesClassification(model),
        };
        Self { schema: schema.into(), classes, class_of, experiences, model }
    }
}

impl From<StateOf4> for State {
    fn from(old: StateOf4) -> Self {
        let StateOf4 { config, position, counts, score, recent, learned, meta, vitals } = old;
        Self { config, position, counts, score, recent, learned: learned.into(), meta, vitals }
    }
}
