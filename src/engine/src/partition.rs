//! The state machine of one partition.

mod version1;
mod version2;
mod version3;
mod version4;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::slice;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use self::version1::StateOf1;
use self::version2::StateOf2;
use self::version3::StateOf3;
use self::version4::StateOf4;
use crate::anomaly::SeriesDetector;
use crate::answer::{
    ACCEPTED, Admission, Answer, AnswerPath, EventRecord, FeedbackOutcome, LibraryPattern, Outcome, PatternMatch,
    Prediction, Rejection, SignalAnomaly, Statistics, Vote,
};
use crate::config::{GateMode, Governance, Hyperparameters, PartitionConfig, Task};
use crate::entry::{
    Control, Entry, EntryId, Event, Features, Input, Label, LibraryChange, LibraryQuery, Query, event_digest,
};
use crate::governor::Governor;
use crate::learner::{Classifier, MEMBERS, Opinion, Regression, best};
use crate::math::in_range;
use crate::meta::{Estimate, Meta, Present, Signal, Vote as MemberVote};
use crate::pattern::Patterns;
use crate::quality::Tally;
use crate::random::Random;
use crate::recent::{Awaited, Recent, Remembered};
use crate::rocket::{self, Rocket};
use crate::schema::{SLOTS_MAX, Schema};
use crate::score::Score;
use crate::snapshot::{self, SnapshotError};
use crate::vitals::Vitals;

/// Classes of a partition.
const CLASSES_MAX: usize = 1_000;
/// Bytes of an id or of a class's name.
const NAME_MAX: usize = 256;
/// Bytes of what waits for labels; beyond it the oldest are forgotten first.
const AWAITED_BYTES_MAX: usize = 64 << 20;
/// The same of whole signals: they are large, and each checkpoint holds them.
const AWAITED_SIGNAL_BYTES_MAX: usize = 16 << 20;
/// The member that predicts alone before the ensemble votes.
const COLD_MEMBER: usize = 1;
/// What is remembered of a vector that wasn't [`ACCEPTED`].
const REJECTED: &str = "rejected";

/// One partition of a domain.
///
/// ```
/// use hebb_engine::{Entry, EntryId, Event, Features, Input, Label, Outcome, Partition, PartitionConfig, Task};
///
/// let mut partition = Partition::new(PartitionConfig::new(Task::Classification));
/// for number in 1..=500u64 {
///     let x = (number % 10) as f64;
///     let event = Event {
///         id: number.to_string().into(),
///         input: Input::Features(Features::Dense(vec![x])),
///         label: Some(Label::Class(if x > 4.5 { "high" } else { "low" }.into())),
///     };
///     let outcome = partition.apply(EntryId { at_ms: number, seq: 0 }, &Entry::Event(event));
///     assert!(matches!(outcome, Outcome::Answer(_)));
/// }
/// assert!(partition.statistics().accuracy > 0.9);
/// let copy = Partition::restore(&partition.snapshot())?;
/// assert_eq!(copy.snapshot(), partition.snapshot());
/// # Ok::<(), hebb_engine::SnapshotError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Partition {
    state: State,
    /// Reused between entries; no part of the state.
    row: Vec<f32>,
    /// The row of a whole signal.
    features: Vec<f64>,
    opinion: Opinion,
    /// For people to look at; no part of the state either.
    tally: Tally,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: Recent,
    learned: Learned,
    meta: Meta,
    vitals: Vitals,
}

/// What is counted whatever the task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts {
    entries: u64,
    events: u64,
    duplicates: u64,
    updates: u64,
    rejected: u64,
    applied_digest: u64,
    drifts: u64,
}

/// What a reset forgets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learned {
    schema: Schema,
    classes: Vec<SmolStr>,
    class_of: BTreeMap<SmolStr, u32>,
    experiences: u64,
    model: Model,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Model {
    Classification(Box<Classifier>),
    Regression(Box<Regression>),
    Patterns(Box<Patterns>, Random, Box<SeriesDetector>),
    Governed(Box<Governor>),
    TimeSeriesClassification(Box<Rocket>),
}

impl Learned {
    fn new(config: &PartitionConfig) -> Self {
        let memory = config.hyperparameters.memory_max_vectors;
        let model = match config.task {
            Task::Classification => Model::Classification(Box::new(Classifier::new(config.seed, memory))),
            Task::Regression => Model::Regression(Box::new(Regression::new(memory))),
            Task::Patterns => Model::Patterns(Box::default(), Random::new(config.seed), Box::default()),
            Task::Governed => Model::Governed(Box::new(Governor::new(memory, Governance::default()))),
            Task::TimeSeriesClassification => Model::TimeSeriesClassification(Box::new(Rocket::new(config.seed))),
        };
        Self { schema: Schema::default(), classes: Vec::new(), class_of: BTreeMap::new(), experiences: 0, model }
    }

    fn classes_max(&self) -> usize {
        match self.model {
            Model::TimeSeriesClassification(_) => rocket::CLASSES_MAX,
            _ => CLASSES_MAX,
        }
    }

    /// The names of the classes.
    fn names(&self) -> Vec<String> {
        self.classes.iter().map(SmolStr::to_string).collect()
    }

    fn class(&mut self, name: &str) -> Result<usize, Rejection> {
        if let Some(class) = self.class_of.get(name) {
            return Ok(*class as usize);
        }
        let max = self.classes_max();
        if self.classes.len() >= max || name.len() > NAME_MAX {
            return Err(Rejection::TooManyClasses { max: max as u32 });
        }
        let (class, name) = (self.classes.len(), SmolStr::new(name));
        self.class_of.insert(name.clone(), class as u32);
        self.classes.push(name);
        Ok(class)
    }
}

/// What was said of an event: a label is scored by it, whenever it comes.
struct Told<'a> {
    prediction: Option<&'a Prediction>,
    confidence: f32,
    /// Of the mixture, by class.
    shares: Vec<f32>,
}

/// A prediction with what the score needs of it.
struct Predicted {
    prediction: Option<Prediction>,
    confidence: f32,
    path: AnswerPath,
    votes: Vec<Vote>,
    /// Of regression: what each member expects.
    expected: Option<[f64; 3]>,
    /// Whether the look-up among the experiences found any; nothing where there are none.
    found: Option<bool>,
}

impl Partition {
    /// A partition that has seen nothing.
    pub fn new(config: PartitionConfig) -> Self {
        let learned = Learned::new(&config);
        let meta = Meta::new(config.task);
        Self::with_state(State {
            config,
            position: EntryId::default(),
            counts: Counts::default(),
            score: Score::default(),
            recent: Recent::default(),
            learned,
            meta,
            vitals: Vitals::default(),
        })
    }

    /// A partition that has seen nothing, with a governed memory that begins so; of other tasks it is [`Partition::new`].
    /// Later changes are entries: [`Control::Govern`].
    pub fn governed(config: PartitionConfig, governance: Governance) -> Self {
        let mut partition = Self::new(config);
        if let Model::Governed(governor) = &mut partition.state.learned.model
            && governance.is_sound()
        {
            governor.govern(governance);
        }
        partition
    }

    fn with_state(state: State) -> Self {
        Self { state, row: Vec::new(), features: Vec::new(), opinion: Opinion::default(), tally: Tally::default() }
    }

    /// What the partition was told.
    pub fn config(&self) -> &PartitionConfig {
        &self.state.config
    }

    /// How its governed memory is run; nothing of other tasks.
    pub fn governance(&self) -> Option<Governance> {
        match &self.state.learned.model {
            Model::Governed(governor) => Some(governor.governance()),
            _ => None,
        }
    }

    /// The last entry applied.
    pub fn position(&self) -> EntryId {
        self.state.position
    }

    /// Counts and quality.
    pub fn statistics(&self) -> Statistics {
        let State { position, counts, score, recent, learned, meta, vitals, .. } = &self.state;
        let (experiences, patterns, bytes) = match &learned.model {
            Model::Classification(model) => (model.experiences(), 0, model.bytes()),
            Model::Regression(model) => (model.experiences(), 0, model.bytes()),
            Model::Patterns(model, _, detector) => (0, model.len(), model.bytes() + detector.bytes()),
            Model::Governed(model) => (model.len(), 0, model.bytes()),
            Model::TimeSeriesClassification(model) => (0, 0, model.bytes()),
        };
        let mut statistics = Statistics {
            entries: counts.entries,
            events: counts.events,
            duplicates: counts.duplicates,
            updates: counts.updates,
            rejected: counts.rejected,
            applied_digest: counts.applied_digest,
            drifts: counts.drifts,
            experiences: experiences as u64,
            patterns: patterns as u64,
            classes: learned.names(),
            features: learned.schema.len() as u32,
            memory_bytes: (bytes + recent.bytes() + meta.bytes() + vitals.bytes()) as u64,
            position: *position,
            ..Statistics::default()
        };
        score.fill(&mut statistics);
        vitals.fill(&mut statistics);
        if let Model::Governed(model) = &learned.model {
            statistics.rejection_rate = model.rejection_rate();
        }
        statistics
    }

    /// How often something was learned: labels that updated the learner, signals whose patterns were learned, vectors that a
    /// governed memory accepted. Its count begins anew with a reset, the others go on.
    pub fn learned(&self) -> u64 {
        let State { counts, learned, .. } = &self.state;
        match &learned.model {
            Model::Classification(_) | Model::Regression(_) | Model::TimeSeriesClassification(_) => counts.updates,
            Model::Patterns(..) => counts.events,
            Model::Governed(model) => model.accepted(),
        }
    }

    /// The state as bytes: versioned and checksummed; equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::write(&self.state)
    }

    /// A digest of the snapshot: equal for equal states.
    pub fn digest(&self) -> u64 {
        snapshot::checksum(&self.snapshot())
    }

    /// Reads what [`Partition::snapshot`] wrote, or that of an earlier version.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are damaged or of a newer version.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (version, body) = snapshot::open(bytes)?;
        let state = match version {
            0 | 1 => snapshot::decode::<StateOf1>(body)?.into(),
            2 => snapshot::decode::<StateOf2>(body)?.into(),
            3 => snapshot::decode::<StateOf3>(body)?.into(),
            4 => snapshot::decode::<StateOf4>(body)?.into(),
            _ => snapshot::decode(body)?,
        };
        Ok(Self::with_state(state))
    }

    /// Applies the entry at `id`.
    pub fn apply(&mut self, id: EntryId, entry: &Entry) -> Outcome {
        self.state.position = id;
        self.state.counts.entries += 1;
        let outcome = match entry {
            Entry::Event(event) if self.state.config.task == Task::Governed => {
                self.admit(id, event).map(Outcome::Admission)
            }
            Entry::Event(event) => self.event(id, event).map(Outcome::Answer),
            Entry::Feedback { id, label } => self.feedback(id, label).map(Outcome::Feedback),
            Entry::Infer(input) => self.infer(input).map(Outcome::Answer),
            Entry::Query(query) => self.query(query),
            Entry::Control(Control::Configure(config)) => self.configure(config),
            Entry::Control(Control::Reset) => {
                self.reset();
                Ok(Outcome::Done)
            }
            Entry::Control(Control::Cycle) => Ok(self.cycle()),
            Entry::Control(Control::Boost { cycles }) => {
                self.state.meta.boost(*cycles);
                Ok(Outcome::Done)
            }
            Entry::Control(Control::ResetMeta) => {
                self.state.meta = Meta::new(self.state.config.task);
                Ok(Outcome::Done)
            }
            Entry::Control(Control::Govern(governance)) => self.govern(governance),
            Entry::Control(Control::Library { id, change }) => self.change_library(id, change),
        };
        outcome.unwrap_or_else(|rejection| {
            self.state.counts.rejected += 1;
            Outcome::Rejected(rejection)
        })
    }

    /// Answers a read beside the log: an inference or a query. The state stays as it is, position and counts too, so that
    /// a copy of a partition can answer and still equals its owner. Nothing for an entry that isn't a read.
    pub fn peek(&mut self, read: &Entry) -> Option<Outcome> {
        let outcome = match read {
            Entry::Infer(input) => self.infer(input).map(Outcome::Answer),
            Entry::Query(query) => self.query(query),
            Entry::Event(_) | Entry::Feedback { .. } | Entry::Control(_) => return None,
        };
        Some(outcome.unwrap_or_else(Outcome::Rejected))
    }

    fn cycle(&mut self) -> Outcome {
        let State { config, learned, meta, .. } = &mut self.state;
        let present = match &learned.model {
            Model::Classification(model) => Present::Votes(model.weights()),
            Model::Regression(model) => Present::Estimates(model.weights()),
            Model::Patterns(patterns, ..) => Present::Signals(patterns),
            Model::Governed(_) | Model::TimeSeriesClassification(_) => Present::Nothing,
        };
        Outcome::Cycle(Box::new(meta.cycle(&config.hyperparameters, &present)))
    }

    /// Forgets what was learned and how good it was. What was applied stays known: the counts, the events' ids, and the changes
    /// of a library.
    fn reset(&mut self) {
        let State { config, score, recent, learned, meta, vitals, position: _, counts: _ } = &mut self.state;
        let mut anew = Learned::new(config);
        match (&learned.model, &mut anew.model) {
            (Model::Patterns(old, ..), Model::Patterns(new, ..)) => **new = old.emptied(),
            (Model::Governed(old), Model::Governed(new)) => new.govern(old.governance()),
            _ => {}
        }
        *learned = anew;
        *score = Score::default();
        *meta = Meta::new(config.task);
        *vitals = Vitals::default();
        recent.forget_awaited();
        self.row.clear();
        self.features.clear();
        self.opinion = Opinion::default();
        self.tally = Tally::default();
    }

    fn unfit(&self, expected: impl Into<String>) -> Rejection {
        Rejection::WrongInput { task: self.state.config.task, expected: expected.into() }
    }

    fn govern(&mut self, governance: &Governance) -> Result<Outcome, Rejection> {
        let unfit = self.unfit("no such rhythm or thresholds");
        match &mut self.state.learned.model {
            Model::Governed(governor) if governance.is_sound() => {
                governor.govern(*governance);
                Ok(Outcome::Done)
            }
            _ => Err(unfit),
        }
    }

    fn change_library(&mut self, id: &str, change: &LibraryChange) -> Result<Outcome, Rejection> {
        if id.is_empty() || id.len() > NAME_MAX {
            return Err(self.unfit(format!("an id of 1 to {NAME_MAX} bytes")));
        }
        let max = self.state.config.hyperparameters.max_local_patterns;
        let changed = match &mut self.state.learned.model {
            Model::Patterns(patterns, ..) => patterns.change(id, change, max),
            _ => Err("no change of patterns"),
        };
        changed.map(|changed| Outcome::LibraryChanged(Box::new(changed))).map_err(|expected| self.unfit(expected))
    }

    fn library(&self, query: &LibraryQuery) -> Vec<LibraryPattern> {
        match &self.state.learned.model {
            Model::Patterns(patterns, ..) => patterns.query(query),
            _ => Vec::new(),
        }
    }

    fn query(&self, query: &Query) -> Result<Outcome, Rejection> {
        Ok(match query {
            Query::Statistics => Outcome::Statistics(Box::new(self.statistics())),
            Query::Quality => Outcome::Quality(Box::new(self.tally.quality(&self.state.learned.names()))),
            Query::Event { id } => Outcome::Event(self.state.recent.get(id).map(|event| event.record.clone())),
            Query::Patterns { limit } => {
                let found = self.library(&LibraryQuery { limit: *limit, ..LibraryQuery::default() });
                Outcome::Patterns(found.into_iter().map(|pattern| pattern.summary).collect())
            }
            Query::Library(query) => Outcome::Library(self.library(query)),
            Query::Governor => match &self.state.learned.model {
                Model::Governed(governor) => Outcome::Governor(Box::new(governor.state())),
                _ => return Err(self.unfit("no question for a governed memory")),
            },
        })
    }

    fn configure(&mut self, config: &PartitionConfig) -> Result<Outcome, Rejection> {
        if config.task != self.state.config.task {
            return Err(Rejection::TaskChange);
        }
        self.state.config = config.clone();
        let Hyperparameters { memory_max_vectors, horizon_events, max_local_patterns, .. } = config.hyperparameters;
        self.state.recent.limit(horizon_events, self.state.position.at_ms);
        match &mut self.state.learned.model {
            Model::Classification(model) => model.limit(memory_max_vectors),
            Model::Regression(model) => model.limit(memory_max_vectors),
            Model::Patterns(model, ..) => model.limit(max_local_patterns),
            Model::Governed(model) => model.limit(memory_max_vectors),
            Model::TimeSeriesClassification(_) => {}
        }
        Ok(Outcome::Done)
    }

    fn check(&self, input: &Input, label: Option<&Label>) -> Result<(), Rejection> {
        let task = self.state.config.task;
        let wrong_input = |expected: &str| Rejection::WrongInput { task, expected: expected.to_owned() };
        let wrong_label = |expected: &str| Rejection::WrongLabel { task, expected: expected.to_owned() };
        match (task, input) {
            (Task::Patterns, Input::Signal(signal)) => {
                if let Some(place) = signal.iter().position(|sample| !sample.is_finite()) {
                    return Err(Rejection::OutOfRange(format!("sample {place}")));
                }
            }
            (Task::Classification | Task::Regression, Input::Features(_)) => {}
            (Task::TimeSeriesClassification, Input::Signal(_) | Input::Channels(_)) => {
                if let Model::TimeSeriesClassification(model) = &self.state.learned.model {
                    model.check(&input.channels())?;
                }
            }
            (Task::TimeSeriesClassification, _) => return Err(wrong_input("a signal")),
            (Task::Governed, Input::Features(Features::Dense(vector))) => self.check_vector(vector)?,
            (Task::Governed, _) => return Err(wrong_input("a vector of numbers")),
            (Task::Patterns, _) => return Err(wrong_input("a signal")),
            (Task::Classification | Task::Regression, _) => return Err(wrong_input("features")),
        }
        self.check_label(label, wrong_label)
    }

    fn check_label(&self, label: Option<&Label>, wrong: impl Fn(&str) -> Rejection) -> Result<(), Rejection> {
        let Some(label) = label else { return Ok(()) };
        match (self.state.config.task, label) {
            (Task::Classification | Task::TimeSeriesClassification, Label::Class(class)) => {
                let learned = &self.state.learned;
                let max = learned.classes_max();
                if learned.class_of.contains_key(class) {
                    Ok(())
                } else if class.len() > NAME_MAX {
                    Err(wrong(&format!("a class of at most {NAME_MAX} bytes")))
                } else if learned.classes.len() >= max {
                    Err(Rejection::TooManyClasses { max: max as u32 })
                } else {
                    Ok(())
                }
            }
            (Task::Regression, Label::Number(number)) if in_range(*number) => Ok(()),
            (Task::Regression, Label::Number(_)) => Err(Rejection::OutOfRange("the label".to_owned())),
            (Task::Classification | Task::TimeSeriesClassification, Label::Number(_)) => Err(wrong("a class")),
            (Task::Regression, Label::Class(_)) => Err(wrong("a number")),
            (Task::Governed, Label::Number(number)) if (0.0..=1.0).contains(number) => Ok(()),
            (Task::Governed, _) => Err(wrong("a number between 0 and 1")),
            (Task::Patterns, _) => Err(wrong("nothing")),
        }
    }

    /// Writes the row of an input; of a signal only where its class is asked for.
    fn fill_row(&mut self, input: &Input) -> Result<(), Rejection> {
        match (&mut self.state.learned.model, input) {
            (_, Input::Features(features)) => self.state.learned.schema.row(features, &mut self.row),
            (Model::TimeSeriesClassification(model), signal) => {
                let channels = signal.channels();
                model.meet(&channels);
                model.features(&channels, &mut self.features);
                Ok(())
            }
            (_, Input::Signal(_) | Input::Channels(_)) => Ok(()),
        }
    }

    /// The same, and nothing is learned from it.
    fn read_row(&mut self, input: &Input) -> Result<(), Rejection> {
        match (&self.state.learned.model, input) {
            (_, Input::Features(features)) => self.state.learned.schema.read(features, &mut self.row),
            (Model::TimeSeriesClassification(model), signal) => {
                model.features(&signal.channels(), &mut self.features);
                Ok(())
            }
            (_, Input::Signal(_) | Input::Channels(_)) => Ok(()),
        }
    }

    fn check_vector(&self, vector: &[f64]) -> Result<(), Rejection> {
        let Model::Governed(governor) = &self.state.learned.model else { return Ok(()) };
        if SLOTS_MAX < vector.len() {
            return Err(Rejection::TooManyFeatures { max: SLOTS_MAX as u32 });
        }
        if let Some(place) = vector.iter().position(|value| !in_range(*value)) {
            return Err(Rejection::OutOfRange(format!("number {place}")));
        }
        let width = governor.width().unwrap_or(vector.len());
        if vector.is_empty() || vector.len() != width {
            let expected = format!("a vector of {} numbers, as the first was", width.max(1));
            return Err(Rejection::WrongInput { task: Task::Governed, expected });
        }
        Ok(())
    }

    fn check_event(&self, event: &Event) -> Result<(), Rejection> {
        if event.id.is_empty() || event.id.len() > NAME_MAX {
            return Err(self.unfit(format!("an id of 1 to {NAME_MAX} bytes")));
        }
        self.check(&event.input, event.label.as_ref())
    }

    /// One step of a governed memory.
    fn admit(&mut self, at: EntryId, event: &Event) -> Result<Admission, Rejection> {
        self.check_event(event)?;
        let known = self.state.recent.get(&event.id).map(|known| known.record.is_accepted());
        if let Some(accepted) = known.or_else(|| self.state.recent.former(&event.id)) {
            self.state.counts.duplicates += 1;
            return Ok(Admission { id: event.id.clone(), duplicate: true, accepted, verdict: None });
        }
        let (Input::Features(Features::Dense(vector)), Some(Label::Number(value))) = (&event.input, &event.label)
        else {
            let (task, expected) = (Task::Governed, "a number between 0 and 1".to_owned());
            return Err(Rejection::WrongLabel { task, expected });
        };
        self.row.clear();
        self.row.extend(vector.iter().map(|value| *value as f32));
        let Model::Governed(governor) = &mut self.state.learned.model else { return Err(Rejection::TaskChange) };
        let verdict = governor.step(&self.row, *value);
        let word = if verdict.accepted { ACCEPTED } else { REJECTED };
        let record = EventRecord {
            applied_at: at,
            prediction: Some(Prediction::Class(SmolStr::new_static(word))),
            confidence: 1.0,
            path: AnswerPath::Ensemble,
            labelled: true,
        };
        self.applied(&event.id, Remembered { record, awaited: None });
        Ok(Admission { id: event.id.clone(), duplicate: false, accepted: verdict.accepted, verdict: Some(verdict) })
    }

    /// Counts an event and remembers it.
    fn applied(&mut self, id: &SmolStr, remembered: Remembered) {
        self.state.counts.events += 1;
        self.state.counts.applied_digest = self.state.counts.applied_digest.wrapping_add(event_digest(id));
        let horizon = self.state.config.hyperparameters.horizon_events;
        let awaited_bytes_max = match self.state.config.task {
            Task::TimeSeriesClassification => AWAITED_SIGNAL_BYTES_MAX,
            _ => AWAITED_BYTES_MAX,
        };
        self.state.recent.insert(id.clone(), remembered, horizon, awaited_bytes_max);
    }

    fn event(&mut self, at: EntryId, event: &Event) -> Result<Answer, Rejection> {
        self.check_event(event)?;
        if let Some(known) = self.state.recent.get(&event.id) {
            let record = known.record.clone();
            self.state.counts.duplicates += 1;
            // A label that the first try didn't bring is taken up, as feedback would be.
            let learned = match &event.label {
                Some(label) if !record.labelled => self.feedback(&event.id, label)? == FeedbackOutcome::Joined,
                _ => false,
            };
            // What was found isn't kept; this is what a look finds now.
            let patterns = match self.state.config.task {
                Task::Patterns => self.infer(&event.input)?.patterns,
                _ => Vec::new(),
            };
            return Ok(Answer {
                id: event.id.clone(),
                duplicate: true,
                prediction: record.prediction,
                path: record.path,
                confidence: record.confidence,
                votes: Vec::new(),
                learned,
                drift: false,
                patterns,
                anomaly: None,
            });
        }
        if self.state.recent.former(&event.id).is_some() {
            // What was said of it is gone; this is what is said now.
            let answer = self.infer(&event.input)?;
            self.state.counts.duplicates += 1;
            return Ok(Answer { id: event.id.clone(), duplicate: true, anomaly: None, ..answer });
        }
        self.fill_row(&event.input)?;
        let (patterns, anomaly) = self.perceive(&event.input, true);
        let predicted = self.predict();
        if let Some(found) = predicted.found {
            self.state.vitals.looked_up(found);
        }
        if matches!(predicted.prediction, Some(Prediction::Class(_))) {
            self.state.vitals.answered(&self.opinion.shares);
        }
        let told = Told {
            prediction: predicted.prediction.as_ref(),
            confidence: predicted.confidence,
            shares: self.opinion.told(),
        };
        let (learned, drift) = match &event.label {
            Some(label) => self.teach(&event.input, label, &told, predicted.expected)?,
            None => (false, false),
        };
        if let Model::Classification(model) = &mut self.state.learned.model
            && !self.opinion.shares.is_empty()
        {
            model.follow(&self.opinion);
        }
        let takes_labels = self.state.config.task != Task::Patterns;
        let remembered = Remembered {
            record: EventRecord {
                applied_at: at,
                prediction: predicted.prediction.clone(),
                confidence: predicted.confidence,
                path: predicted.path,
                labelled: event.label.is_some(),
            },
            awaited: (event.label.is_none() && takes_labels)
                .then(|| Awaited { input: event.input.clone(), shares: Some(told.shares) }),
        };
        self.applied(&event.id, remembered);
        Ok(Answer {
            id: event.id.clone(),
            duplicate: false,
            prediction: predicted.prediction,
            path: predicted.path,
            confidence: predicted.confidence,
            votes: predicted.votes,
            learned,
            drift,
            patterns,
            anomaly,
        })
    }

    fn infer(&mut self, input: &Input) -> Result<Answer, Rejection> {
        if self.state.config.task == Task::Governed {
            let expected = "events with what they are worth, and predicts nothing".to_owned();
            return Err(Rejection::WrongInput { task: Task::Governed, expected });
        }
        self.check(input, None)?;
        self.read_row(input)?;
        let (patterns, anomaly) = self.perceive(input, false);
        let predicted = self.predict();
        Ok(Answer {
            id: SmolStr::default(),
            duplicate: false,
            prediction: predicted.prediction,
            path: predicted.path,
            confidence: predicted.confidence,
            votes: predicted.votes,
            learned: false,
            drift: false,
            patterns,
            anomaly,
        })
    }

    fn perceive(&mut self, input: &Input, learn: bool) -> (Vec<PatternMatch>, Option<SignalAnomaly>) {
        let State { config, learned, meta, .. } = &mut self.state;
        match (&mut learned.model, input) {
            (Model::Patterns(patterns, random, detector), Input::Signal(signal)) => {
                let tuned = meta.tuning.tuned(&config.hyperparameters);
                let found = patterns.perceive(signal, &tuned, random, learn);
                if learn {
                    meta.experience.signal(Signal::new(signal, &found));
                    meta.lived();
                }
                let anomaly = if learn { detector.watch(signal) } else { detector.clone().watch(signal) };
                (found, anomaly)
            }
            _ => (Vec::new(), None),
        }
    }

    /// Predicts for the row.
    fn predict(&mut self) -> Predicted {
        let learned = &self.state.learned;
        let cold = learned.experiences < u64::from(self.state.config.hyperparameters.cold_start_experiences);
        let path = if cold { AnswerPath::ColdStart } else { AnswerPath::Ensemble };
        let nothing =
            Predicted { prediction: None, confidence: 0.0, path, votes: Vec::new(), expected: None, found: None };
        match &learned.model {
            Model::Patterns(..) | Model::Governed(_) => nothing,
            Model::TimeSeriesClassification(model) => {
                model.consider(&self.features, &mut self.opinion.shares);
                let cold = !model.is_settled() || self.opinion.shares.len() < 2;
                let path = if cold { AnswerPath::ColdStart } else { AnswerPath::Ensemble };
                let Some(top) = best(&self.opinion.shares) else { return Predicted { path, ..nothing } };
                Predicted {
                    prediction: Some(Prediction::Class(learned.classes[top].clone())),
                    confidence: self.opinion.shares[top] as f32,
                    path,
                    ..nothing
                }
            }
            Model::Classification(model) => {
                let classes = learned.classes.len();
                if classes == 0 {
                    self.opinion.shares.clear();
                    return nothing;
                }
                // Before there is enough to tell the members apart, the memory of all experiences alone is the base.
                if cold {
                    model.ask_all(&self.row, classes, &mut self.opinion);
                } else {
                    model.consider(&self.row, classes, &mut self.opinion);
                }
                let left_early = self.opinion.left_early();
                // The trees lead the members.
                let asked = if left_early { slice::from_ref(&self.opinion.shares) } else { &self.opinion.members[..] };
                let name = |class: usize| Prediction::Class(learned.classes[class].clone());
                let shares = if cold { &self.opinion.members[COLD_MEMBER] } else { &self.opinion.shares };
                let top = best(shares).unwrap_or(0);
                let votes = MEMBERS.iter().zip(asked).zip(model.weights());
                let votes = votes.map(|((member, shares), weight)| Vote {
                    member: Cow::Borrowed(member),
                    prediction: name(best(shares).unwrap_or(0)),
                    weight: *weight as f32,
                });
                Predicted {
                    prediction: Some(name(top)),
                    confidence: shares[top] as f32,
                    path,
                    votes: votes.collect(),
                    expected: None,
                    found: (model.experiences() > 0 && !left_early).then(|| self.opinion.found_neighbours()),
                }
            }
            Model::Regression(model) => {
                let (expected, found) = model.consider(&self.row);
                let found = (model.experiences() > 0).then_some(found);
                if learned.experiences == 0 {
                    return Predicted { expected: Some(expected), found, ..nothing };
                }
                let votes = crate::learner::REGRESSION_MEMBERS.iter().zip(expected).zip(model.weights());
                let votes = votes.map(|((member, value), weight)| Vote {
                    member: Cow::Borrowed(member),
                    prediction: Prediction::Number(value),
                    weight: *weight as f32,
                });
                let mixed = if cold { expected[1] } else { model.mix(&expected) };
                Predicted {
                    prediction: Some(Prediction::Number(mixed)),
                    confidence: model.confidence(&expected) as f32,
                    path,
                    votes: votes.collect(),
                    expected: Some(expected),
                    found,
                }
            }
        }
    }

    /// Scores the prediction, then lets the gate decide about the lesson: whether it was learned, and whether it drifted.
    fn teach(
        &mut self,
        input: &Input,
        label: &Label,
        told: &Told<'_>,
        expected: Option<[f64; 3]>,
    ) -> Result<(bool, bool), Rejection> {
        let Told { prediction, confidence, shares } = told;
        let confidence = *confidence;
        let parameters = self.state.config.hyperparameters.clone();
        let State { score, learned, meta, .. } = &mut self.state;
        let cold = learned.experiences < u64::from(parameters.cold_start_experiences);
        let opens = |right: bool| {
            cold || match parameters.gate_mode {
                GateMode::Always => true,
                GateMode::Uncertain => !right || confidence < parameters.confidence_gate,
                GateMode::Confident => confidence >= parameters.confidence_gate,
            }
        };
        let (opened, drifted) = match label {
            Label::Class(name) => {
                let predicted = match prediction {
                    Some(Prediction::Class(class)) => learned.class_of.get(class).map(|class| *class as usize),
                    Some(Prediction::Number(_)) | None => None,
                };
                let known = self.opinion.shares.len();
                let class = learned.class(name)?;
                let probability = shares.get(class).copied().unwrap_or(0.0);
                score.classified(predicted, f64::from(probability), class);
                if let Some(predicted) = predicted {
                    self.tally.count(predicted, confidence, class);
                }
                let right = predicted == Some(class);
                let model = match &mut learned.model {
                    Model::Classification(model) => model,
                    Model::TimeSeriesClassification(model) => {
                        let drifted = model.see(&self.features, &self.opinion.shares, class);
                        let opened = opens(right) || !model.is_settled();
                        if opened {
                            model.learn(&input.channels(), &self.features, class);
                        }
                        return Ok(self.taught(opened, drifted));
                    }
                    _ => return Ok((false, false)),
                };
                if class >= known || known == 0 {
                    // The members must know of the class before they are told.
                    model.ask_all(&self.row, learned.classes.len(), &mut self.opinion);
                }
                let drifted = model.see(&self.row, class, &mut self.opinion, meta.tuning.pace());
                meta.experience.vote(if self.opinion.left_early() {
                    MemberVote::unasked(right)
                } else {
                    MemberVote::new(right, class, &self.opinion.members, &self.opinion.shares)
                });
                let opened = opens(right);
                if opened {
                    model.learn(&self.row, class, &mut self.opinion);
                }
                (opened, drifted)
            }
            Label::Number(target) => {
                let Model::Regression(model) = &mut learned.model else { return Ok((false, false)) };
                let expected = expected.unwrap_or_else(|| model.consider(&self.row).0);
                if let Some(Prediction::Number(number)) = prediction {
                    score.estimated(*number, *target);
                } else {
                    score.labels += 1;
                }
                let predicted = match prediction {
                    Some(Prediction::Number(number)) => Some(*number),
                    Some(Prediction::Class(_)) | None => None,
                };
                meta.experience.estimate(Estimate::new(predicted, expected, *target, model.unit()));
                model.see(*target, &expected, meta.tuning.pace());
                let opened = opens(false);
                if opened {
                    model.learn(&self.row, *target);
                }
                (opened, false)
            }
        };
        meta.lived();
        Ok(self.taught(opened, drifted))
    }

    /// Counts a label.
    fn taught(&mut self, opened: bool, drifted: bool) -> (bool, bool) {
        let State { learned, counts, .. } = &mut self.state;
        learned.experiences += 1;
        counts.updates += u64::from(opened);
        counts.drifts += u64::from(drifted);
        (opened, drifted)
    }

    /// Joins a label with its event: scored by the prediction of then, learned with the state of now.
    fn feedback(&mut self, id: &str, label: &Label) -> Result<FeedbackOutcome, Rejection> {
        let task = self.state.config.task;
        let wrong = |expected: &str| Rejection::WrongLabel { task, expected: expected.to_owned() };
        self.check_label(Some(label), wrong)?;
        let Some(known) = self.state.recent.get(id) else { return Ok(FeedbackOutcome::Unknown) };
        if known.record.labelled {
            return Ok(FeedbackOutcome::AlreadyLabelled);
        }
        let EventRecord { prediction, confidence, .. } = known.record.clone();
        let Some(awaited) = self.state.recent.label(id) else {
            // Its input was forgotten to keep the bound of bytes.
            return Ok(FeedbackOutcome::Unknown);
        };
        // It taught its names and its numbers when it came.
        self.read_row(&awaited.input)?;
        self.opinion.is_late = true;
        let expected = self.predict().expected;
        let shares = awaited.shares.unwrap_or_else(|| self.opinion.told());
        let told = Told { prediction: prediction.as_ref(), confidence, shares };
        let taught = self.teach(&awaited.input, label, &told, expected);
        self.opinion.is_late = false;
        taught.map(|_| FeedbackOutcome::Joined)
    }
}
