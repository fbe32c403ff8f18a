//! JSON in and out: what clients send, checked against the bounds before anything is appended, and what they get.
//!
//! Pure: bytes to entries, outcomes to values. A request that fails here has changed nothing.

use std::borrow::Cow;
use std::fmt;

use hebb_engine::{
    Answer, AnswerPath, Event, Features, Input, Label, NUMBER_MAX, PatternMatch, Prediction, SignalAnomaly, SmolStr,
    Task, Value,
};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::consistency::Staleness;

/// Features of one event; the engine's schema holds no more.
pub const FEATURES_MAX: usize = 4_096;
/// Samples of one signal.
pub const SIGNAL_MAX: usize = 65_536;
/// Channels of one signal.
pub const CHANNELS_MAX: usize = 64;
/// Signals of one batch.
pub const BATCH_MAX: usize = 1_000;
/// Signals of one batch that are under way at once, unless it says how many.
const BATCH_SIZE: usize = 64;
/// The most that it may say: one append's worth.
const BATCH_SIZE_MAX: usize = 512;
/// The largest sample: the squares of a whole signal of them have a sum that 32 bits hold.
pub const SAMPLE_MAX: f32 = 1e15;
/// From here on a number with a fraction or an exponent stands for several whole ones.
const WHOLE_MAX: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
const _: () = assert!(4.0 * SAMPLE_MAX * SAMPLE_MAX * (SIGNAL_MAX as f32) < f32::MAX);
/// Bytes of an id, a key, a feature's name or a category.
pub const TEXT_MAX: usize = 256;
/// Bytes of one JSON body, and of one line of NDJSON.
pub const BODY_MAX: usize = 1 << 20;

/// Why a request is refused before anything happened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WireError {
    /// Not JSON, or not of the expected shape.
    #[error("the body is not what this endpoint takes: {0}")]
    Shape(String),
    /// A bound is passed.
    #[error("{what} has {found} {unit}, at most {max} are allowed")]
    TooLarge { what: &'static str, unit: &'static str, found: usize, max: usize },
    /// Well-formed, but not for this domain.
    #[error("{0}")]
    Unfit(String),
}

/// The body of `infer` and `infer-and-adapt`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, key, features or signal, and label")]
pub struct EventBody {
    /// Names the event; given by the gateway when absent.
    pub id: Option<SmolStr>,
    /// Events with one key share a partition.
    pub key: Option<String>,
    /// What was observed: this, or a signal.
    pub features: Option<FeaturesBody>,
    /// A whole signal, where its class is asked for.
    pub signal: Option<WholeSignal>,
    /// What was true.
    pub label: Option<LabelBody>,
}

/// The body of `feedback`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, key and label")]
pub struct FeedbackBody {
    /// The event's id.
    pub id: SmolStr,
    /// The event's key, if it had one.
    pub key: Option<String>,
    /// What was true.
    pub label: LabelBody,
}

/// The body of `perceive`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, key and signal")]
pub struct SignalBody {
    /// Names the event; given by the gateway when absent.
    pub id: Option<SmolStr>,
    /// Signals with one key share a partition.
    pub key: Option<String>,
    /// Consecutive samples.
    pub signal: Vec<f32>,
}

/// The body of `perceive:batch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with signals and batch_size")]
pub struct BatchBody {
    /// What `perceive` takes, each, or its samples alone.
    pub signals: Vec<BatchSignal>,
    /// How many are under way at once.
    pub batch_size: Option<usize>,
}

/// A signal, or its samples alone.
#[derive(Debug)]
pub struct BatchSignal(pub SignalBody);

impl BatchBody {
    /// The signals and how many are under way at once, within the bounds.
    pub fn checked(self) -> Result<(Vec<SignalBody>, usize), WireError> {
        let found = self.signals.len();
        if found == 0 {
            return Err(WireError::Unfit("signals is empty".to_owned()));
        }
        if found > BATCH_MAX {
            return Err(WireError::TooLarge { what: "signals", unit: "signals", found, max: BATCH_MAX });
        }
        let size = self.batch_size.unwrap_or(BATCH_SIZE);
        if !(1..=BATCH_SIZE_MAX).contains(&size) {
            return Err(WireError::Unfit(format!("batch_size is {size}, it must be between 1 and {BATCH_SIZE_MAX}")));
        }
        Ok((self.signals.into_iter().map(|signal| signal.0).collect(), size))
    }
}

impl<'de> Deserialize<'de> for BatchSignal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SignalVisitor;
        impl<'de> Visitor<'de> for SignalVisitor {
            type Value = BatchSignal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or an object with id, key and signal")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<BatchSignal, A::Error> {
                let signal = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(BatchSignal(SignalBody { id: None, key: None, signal }))
            }

            fn visit_map<A: MapAccess<'de>>(self, items: A) -> Result<BatchSignal, A::Error> {
                SignalBody::deserialize(MapAccessDeserializer::new(items)).map(BatchSignal)
            }
        }
        deserializer.deserialize_any(SignalVisitor)
    }
}

/// The samples of a signal, or of each of its channels.
#[derive(Clone, Debug)]
pub struct WholeSignal(pub Vec<Vec<f32>>);

impl<'de> Deserialize<'de> for WholeSignal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor;
        impl<'de> Visitor<'de> for ItemsVisitor {
            type Value = WholeSignal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or a list of channels, each a list of numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<WholeSignal, A::Error> {
                let (mut samples, mut channels) = (Vec::new(), Vec::new());
                while let Some(item) = items.next_element()? {
                    match item {
                        SignalItem::Sample(sample) if channels.is_empty() => samples.push(sample),
                        SignalItem::Channel(channel) if samples.is_empty() => channels.push(channel),
                        _ => return Err(serde::de::Error::custom("the signal has samples beside channels")),
                    }
                }
                Ok(WholeSignal(if channels.is_empty() { vec![samples] } else { channels }))
            }
        }
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

enum SignalItem {
    Sample(f32),
    Channel(Vec<f32>),
}

impl<'de> Deserialize<'de> for SignalItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = SignalItem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sample, which is a number, or a channel, which is a list of them")
            }

            fn visit_f64<E>(self, sample: f64) -> Result<SignalItem, E> {
                Ok(SignalItem::Sample(sample as f32))
            }

            fn visit_i64<E>(self, sample: i64) -> Result<SignalItem, E> {
                Ok(SignalItem::Sample(sample as f32))
            }

            fn visit_u64<E>(self, sample: u64) -> Result<SignalItem, E> {
                Ok(SignalItem::Sample(sample as f32))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, samples: A) -> Result<SignalItem, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(samples)).map(SignalItem::Channel)
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// A list of numbers, or an object of values by name.
#[derive(Clone, Debug)]
pub struct FeaturesBody(pub Features);

/// A string, a boolean or a number.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelBody {
    /// A class by name.
    Text(String),
    /// A class by number, or a target; from `i64::MIN` to `u64::MAX`.
    Integer(i128),
    /// A target.
    Float(f64),
}

impl<'de> Deserialize<'de> for FeaturesBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FeaturesVisitor;
        impl<'de> Visitor<'de> for FeaturesVisitor {
            type Value = FeaturesBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or an object of numbers, strings, booleans and nulls by name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FeaturesBody, A::Error> {
                let mut values = Vec::with_capacity(items.size_hint().unwrap_or(16).min(FEATURES_MAX));
                while let Some(value) = items.next_element::<f64>()? {
                    values.push(value);
                }
                Ok(FeaturesBody(Features::Dense(values)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<FeaturesBody, A::Error> {
                let mut values = Vec::new();
                while let Some((name, value)) = items.next_entry::<String, ValueBody>()? {
                    values.push((name, value.0));
                }
                Ok(FeaturesBody(Features::Named(values)))
            }
        }
        deserializer.deserialize_any(FeaturesVisitor)
    }
}

struct ValueBody(Value);

impl<'de> Deserialize<'de> for ValueBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl Visitor<'_> for ValueVisitor {
            type Value = ValueBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a string, a boolean or null")
            }

            fn visit_f64<E>(self, value: f64) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Number(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Number(value as f64)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Number(value as f64)))
            }

            fn visit_bool<E>(self, value: bool) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Number(f64::from(u8::from(value)))))
            }

            fn visit_str<E>(self, value: &str) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Text(value.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<ValueBody, E> {
                Ok(ValueBody(Value::Missing))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for LabelBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;
        impl Visitor<'_> for LabelVisitor {
            type Value = LabelBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a class (string, boolean or whole number) or a target (number)")
            }

            fn visit_f64<E>(self, value: f64) -> Result<LabelBody, E> {
                Ok(LabelBody::Float(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<LabelBody, E> {
                Ok(LabelBody::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<LabelBody, E> {
                Ok(LabelBody::Integer(value.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<LabelBody, E> {
                Ok(LabelBody::Text(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<LabelBody, E> {
                Ok(LabelBody::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(LabelVisitor)
    }
}

impl LabelBody {
    /// The label as the task understands it.
    pub fn for_task(self, task: Task) -> Result<Label, WireError> {
        match (task, self) {
            (Task::Classification | Task::TimeSeriesClassification, LabelBody::Text(class)) => {
                bounded("the label", &class)?;
                Ok(Label::Class(class.into()))
            }
            (Task::Classification | Task::TimeSeriesClassification, LabelBody::Integer(class)) => {
                Ok(Label::Class(class.to_string().into()))
            }
            (Task::Classification | Task::TimeSeriesClassification, LabelBody::Float(class))
                if class.fract() == 0.0 && class.abs() < WHOLE_MAX =>
            {
                Ok(Label::Class((class as i64).to_string().into()))
            }
            (Task::Classification | Task::TimeSeriesClassification, LabelBody::Float(class))
                if class.fract() == 0.0 =>
            {
                Err(WireError::Unfit(format!("the label {class:e} has more digits than are kept: send it as a string")))
            }
            (Task::Classification | Task::TimeSeriesClassification, LabelBody::Float(class)) => {
                let regression = match task {
                    Task::Classification => "; one that learns numbers is declared as Regression in spec.domains",
                    _ => "",
                };
                Err(WireError::Unfit(format!(
                    "the label {class} is not a class: a {task:?} domain takes strings, booleans and whole numbers{regression}"
                )))
            }
            (Task::Regression, LabelBody::Integer(target)) => target_within(target as f64),
            (Task::Regression, LabelBody::Float(target)) => target_within(target),
            (Task::Regression, LabelBody::Text(text)) => {
                Err(WireError::Unfit(format!("the label {text:?} is not a number: a Regression domain takes numbers")))
            }
            (Task::Governed, _) => Err(not_governed()),
            (Task::Patterns, _) => Err(WireError::Unfit("a Patterns domain takes no labels".to_owned())),
        }
    }
}

impl EventBody {
    /// The task that a domain has when this is its first event: nobody calls a class 3.7.
    pub fn implied_task(&self) -> Task {
        match self.label {
            _ if self.signal.is_some() => Task::TimeSeriesClassification,
            Some(LabelBody::Float(value)) if value.fract() != 0.0 => Task::Regression,
            _ => Task::Classification,
        }
    }
}

/// Reads a JSON body.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    if body.len() > BODY_MAX {
        return Err(WireError::TooLarge { what: "the body", unit: "bytes", found: body.len(), max: BODY_MAX });
    }
    from_object(body).map_err(|error| WireError::Shape(in_json(&error.to_string())))
}

/// What a parser expected, in the words of JSON instead of the names of types, and where bodies of several values go.
fn in_json(error: &str) -> String {
    if error.starts_with("trailing characters") {
        return format!(
            "{error}, behind the first value; a stream of events goes to infer-and-adapt with content-type \
             application/x-ndjson, and many signals to perceive:batch"
        );
    }
    let Some((found, expected)) = error.rsplit_once(", expected ") else { return error.to_owned() };
    let (what, place) = expected.split_once(" at line ").unwrap_or((expected, ""));
    let what = match what {
        "f32" | "f64" => "a number",
        "u8" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "a sequence" => "a list",
        other => other,
    };
    let place = if place.is_empty() { String::new() } else { format!(" at line {place}") };
    format!("{found}, expected {what}{place}")
}

/// Reads a JSON object. What is derived for reading one takes a list of its fields' values too, which nobody means.
pub fn from_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    match json.trim_ascii_start().first() {
        Some(b'[') => Err(serde::de::Error::custom("invalid type: a list, expected an object")),
        _ => serde_json::from_slice(json),
    }
}

fn target_within(target: f64) -> Result<Label, WireError> {
    in_range(target, || "the label".to_owned())?;
    Ok(Label::Number(target))
}

/// Checks a number against the engine's bound.
pub fn in_range(number: f64, what: impl FnOnce() -> String) -> Result<(), WireError> {
    if number.abs() <= NUMBER_MAX {
        return Ok(());
    }
    Err(WireError::Unfit(format!("{} is beyond ±{NUMBER_MAX:e}", what())))
}

fn bounded(what: &'static str, text: &str) -> Result<(), WireError> {
    if text.len() > TEXT_MAX {
        return Err(WireError::TooLarge { what, unit: "bytes", found: text.len(), max: TEXT_MAX });
    }
    Ok(())
}

/// Checks an id or a key.
pub fn check_name(what: &'static str, name: &str) -> Result<(), WireError> {
    if name.is_empty() {
        return Err(WireError::Unfit(format!("{what} is empty")));
    }
    bounded(what, name)
}

fn not_governed() -> WireError {
    WireError::Unfit("a Governed domain takes vectors: use POST /event".to_owned())
}

/// What an event is of, within the bounds, for a domain that takes it.
pub fn input(features: Option<FeaturesBody>, signal: Option<WholeSignal>, task: Task) -> Result<Input, WireError> {
    match (features, signal) {
        (Some(features), None) => features_input(features.0, task),
        (None, Some(signal)) => whole_signal_input(signal, task),
        (None, None) => Err(WireError::Shape("missing field `features`, or `signal` in its place".to_owned())),
        (Some(_), Some(_)) => Err(WireError::Shape("there are both `features` and `signal`".to_owned())),
    }
}

/// Features within the bounds, for a domain that takes them.
pub fn features_input(features: Features, task: Task) -> Result<Input, WireError> {
    match task {
        Task::Patterns => return Err(WireError::Unfit("a Patterns domain takes signals: use perceive".to_owned())),
        Task::Governed => return Err(not_governed()),
        Task::TimeSeriesClassification => {
            let why = "a TimeSeriesClassification domain takes whole signals: send signal instead of features";
            return Err(WireError::Unfit(why.to_owned()));
        }
        Task::Classification | Task::Regression => {}
    }
    let found = features.len();
    if found == 0 {
        return Err(WireError::Unfit("features is empty".to_owned()));
    }
    if found > FEATURES_MAX {
        return Err(WireError::TooLarge { what: "features", unit: "values", found, max: FEATURES_MAX });
    }
    match &features {
        Features::Dense(values) => {
            for (place, value) in values.iter().enumerate() {
                in_range(*value, || format!("feature {place}"))?;
            }
        }
        Features::Named(values) => {
            for (name, value) in values {
                check_name("the name of a feature", name)?;
                match value {
                    Value::Number(number) => in_range(*number, || format!("feature {name:?}"))?,
                    Value::Text(text) => bounded("a category", text)?,
                    Value::Missing => {}
                }
            }
        }
    }
    Ok(Input::Features(features))
}

/// A signal within the bounds, for a domain that takes one.
pub fn signal_input(signal: Vec<f32>, task: Task) -> Result<Input, WireError> {
    match task {
        Task::Patterns => {}
        Task::Governed => return Err(not_governed()),
        Task::TimeSeriesClassification => {
            return Err(WireError::Unfit("this domain tells classes of signals: use infer-and-adapt".to_owned()));
        }
        Task::Classification | Task::Regression => {
            return Err(WireError::Unfit("this domain takes features: use infer-and-adapt".to_owned()));
        }
    }
    if signal.len() < 2 {
        return Err(WireError::Unfit("a signal has at least 2 samples".to_owned()));
    }
    if signal.len() > SIGNAL_MAX {
        return Err(WireError::TooLarge { what: "the signal", unit: "samples", found: signal.len(), max: SIGNAL_MAX });
    }
    if let Some(place) = signal.iter().position(|sample| sample.abs() > SAMPLE_MAX || sample.is_nan()) {
        return Err(WireError::Unfit(format!("sample {place} of the signal is beyond ±{SAMPLE_MAX:e}")));
    }
    Ok(Input::Signal(signal))
}

/// A whole signal within the bounds, for a domain that classifies them.
fn whole_signal_input(signal: WholeSignal, task: Task) -> Result<Input, WireError> {
    match task {
        Task::TimeSeriesClassification => {}
        Task::Governed => return Err(not_governed()),
        Task::Patterns => return Err(WireError::Unfit("a Patterns domain takes signals by perceive".to_owned())),
        Task::Classification | Task::Regression => {
            return Err(WireError::Unfit(format!("a {task:?} domain takes features, no signal")));
        }
    }
    let mut channels = signal.0;
    let found = channels.len();
    if found > CHANNELS_MAX {
        return Err(WireError::TooLarge { what: "the signal", unit: "channels", found, max: CHANNELS_MAX });
    }
    let length = channels.first().map_or(0, Vec::len);
    if length == 0 {
        return Err(WireError::Unfit("the signal has no samples".to_owned()));
    }
    for (place, channel) in channels.iter().enumerate() {
        if channel.len() != length {
            return Err(WireError::Unfit(format!(
                "channel {place} of the signal has {} samples and channel 0 has {length}: all have equally many",
                channel.len()
            )));
        }
        if let Some(sample) = channel.iter().position(|sample| sample.abs() > SAMPLE_MAX || sample.is_nan()) {
            let of_channel = if found > 1 { format!(" of channel {place}") } else { String::new() };
            return Err(WireError::Unfit(format!(
                "sample {sample}{of_channel} of the signal is beyond ±{SAMPLE_MAX:e}"
            )));
        }
    }
    let found = found * length;
    if found > SIGNAL_MAX {
        return Err(WireError::TooLarge { what: "the signal", unit: "samples", found, max: SIGNAL_MAX });
    }
    Ok(if channels.len() == 1 { Input::Signal(channels.swap_remove(0)) } else { Input::Channels(channels) })
}

/// An event within the bounds. `fallback_id` names it where the client didn't.
pub fn event(body: EventBody, task: Task, fallback_id: impl FnOnce() -> SmolStr) -> Result<Event, WireError> {
    let id = match body.id {
        Some(id) => {
            check_name("the id", &id)?;
            id
        }
        None => fallback_id(),
    };
    let input = input(body.features, body.signal, task)?;
    let label = body.label.map(|label| label.for_task(task)).transpose()?;
    Ok(Event { id, input, label })
}

/// What `infer`, `infer-and-adapt` and `perceive` answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerBody {
    /// The event's id; absent for an inference.
    #[serde(skip_serializing_if = "SmolStr::is_empty")]
    pub id: SmolStr,
    /// The class or the target; null before the first label.
    pub prediction: Option<PredictionBody>,
    /// 0 to 1.
    pub confidence: f32,
    /// `cold_start` or `ensemble`.
    pub path: &'static str,
    /// Whether the label updated the learner.
    pub learned: bool,
    /// Whether a drift detector fired.
    pub drift: bool,
    /// Whether the id was answered before.
    pub duplicate: bool,
    /// What each member said that was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<VoteBody>,
    /// The patterns found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<PatternBody>,
    /// What stands out in a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyBody>,
    /// From the request to the answer, in the gateway.
    pub latency_ms: f64,
    /// Of an eventual read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness: Option<Staleness>,
}

/// A prediction as JSON: a string or a number.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum PredictionBody {
    Class(SmolStr),
    Number(f64),
}

/// One vote.
#[derive(Debug, Serialize)]
pub struct VoteBody {
    member: Cow<'static, str>,
    prediction: PredictionBody,
    weight: f32,
}

/// One found pattern.
#[derive(Debug, Serialize)]
pub struct PatternBody {
    id: u64,
    level: u8,
    start: u32,
    length: u32,
    similarity: f32,
    new: bool,
}

impl From<PatternMatch> for PatternBody {
    fn from(found: PatternMatch) -> Self {
        let PatternMatch { id, level, start, length, similarity, new } = found;
        Self { id, level, start, length, similarity, new }
    }
}

/// What stands out in a signal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnomalyBody {
    score: f32,
    at: u32,
    z_score: f32,
    change: f32,
    change_at: u32,
}

impl From<SignalAnomaly> for AnomalyBody {
    fn from(found: SignalAnomaly) -> Self {
        let SignalAnomaly { score, at, z_score, change, change_at } = found;
        Self { score, at, z_score, change, change_at }
    }
}

impl From<Prediction> for PredictionBody {
    fn from(prediction: Prediction) -> Self {
        match prediction {
            Prediction::Class(class) => Self::Class(class),
            Prediction::Number(number) => Self::Number(number),
        }
    }
}

/// The public name of a path.
pub fn path_name(path: AnswerPath) -> &'static str {
    match path {
        AnswerPath::ColdStart => "cold_start",
        AnswerPath::Ensemble => "ensemble",
    }
}

/// The answer as clients see it.
pub fn answer_body(answer: Answer, latency_ms: f64) -> AnswerBody {
    AnswerBody {
        id: answer.id,
        prediction: answer.prediction.map(PredictionBody::from),
        confidence: answer.confidence,
        path: path_name(answer.path),
        learned: answer.learned,
        drift: answer.drift,
        duplicate: answer.duplicate,
        votes: answer
            .votes
            .into_iter()
            .map(|vote| VoteBody { member: vote.member, prediction: vote.prediction.into(), weight: vote.weight })
            .collect(),
        patterns: answer.patterns.into_iter().map(PatternBody::from).collect(),
        anomaly: answer.anomaly.map(AnomalyBody::from),
        latency_ms,
        staleness: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, task: Task) -> Result<Event, WireError> {
        event(parse(body.as_bytes())?, task, || "given".into())
    }

    #[test]
    fn features_come_by_position_or_by_name() {
        let dense = read(r#"{"features":[1,2.5]}"#, Task::Classification).unwrap();
        assert_eq!(dense.input, Input::Features(Features::Dense(vec![1.0, 2.5])));
        assert_eq!(dense.id, "given");
        let named =
            read(r#"{"id":"e1","features":{"a":1,"b":"red","c":null,"d":true},"label":"up"}"#, Task::Classification)
                .unwrap();
        let Input::Features(Features::Named(values)) = named.input else { panic!("named features expected") };
        assert_eq!(values[1], ("b".to_owned(), Value::Text("red".to_owned())));
        assert_eq!(values[2], ("c".to_owned(), Value::Missing));
        assert_eq!(named.label, Some(Label::Class("up".into())));
    }

    #[test]
    fn what_is_not_json_or_not_finite_is_refused() {
        for body in [
            "",
            "{",
            "[]",
            r#"{"features":[NaN]}"#,
            r#"{"features":[1e999]}"#,
            r#"{"features":["x"]}"#,
            r#"{"features":[1],"extra":1}"#,
            r#"{"features":{"a":[1]}}"#,
            r#"["id",null,[1,2],null,"up"]"#,
            r#" ["id",null,[1,2],null,"up"]"#,
        ] {
            assert!(matches!(read(body, Task::Classification), Err(WireError::Shape(_))), "{body}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_send() {
        let batch = |body: &str| parse::<BatchBody>(body.as_bytes()).map(|_| ()).unwrap_err().to_string();
        let event = |body: &str| read(body, Task::Classification).unwrap_err().to_string();
        for (refused, expected) in [
            (event("5"), "expected an object with id, key, features or signal, and label at line 1"),
            (event(r#"{"features":["x"]}"#), "invalid type: string \"x\", expected a number at line 1 column 16"),
            (batch(r#"{"signals":[[1,"x"]]}"#), "expected a number at line 1"),
            (batch(r#"{"signals":[],"batch_size":-1}"#), "expected a whole number from 0 on at line 1"),
            (event("{\"features\":[1]}\n{\"features\":[2]}"), "with content-type application/x-ndjson"),
            (event(r#"{"features":[1],"label":1.5}"#), "declared as Regression in spec.domains"),
        ] {
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn ten_thousand_features_are_refused_with_the_bound() {
        let body = format!(r#"{{"features":[{}0]}}"#, "0,".repeat(9_999));
        let error = read(&body, Task::Classification).unwrap_err();
        assert_eq!(error.to_string(), "features has 10000 values, at most 4096 are allowed");
    }

    #[test]
    fn a_label_is_read_as_the_task_needs_it() {
        assert_eq!(LabelBody::Integer(1).for_task(Task::Classification), Ok(Label::Class("1".into())));
        assert_eq!(LabelBody::Float(1.0).for_task(Task::Classification), Ok(Label::Class("1".into())));
        assert_eq!(LabelBody::Integer(1).for_task(Task::Regression), Ok(Label::Number(1.0)));
        assert!(LabelBody::Float(1.5).for_task(Task::Classification).is_err());
        assert!(LabelBody::Text("x".to_owned()).for_task(Task::Regression).is_err());
        let implied = |body: &str| parse::<EventBody>(body.as_bytes()).unwrap().implied_task();
        assert_eq!(implied(r#"{"features":[1],"label":3.7}"#), Task::Regression);
        assert_eq!(implied(r#"{"features":[1],"label":3}"#), Task::Classification);
        assert_eq!(implied(r#"{"signal":[1],"label":3}"#), Task::TimeSeriesClassification);
    }

    #[test]
    fn a_number_as_class_keeps_its_digits_or_is_refused() {
        let class = |label: &str| {
            let body = format!(r#"{{"features":[1],"label":{label}}}"#);
            read(&body, Task::Classification).map(|event| event.label.unwrap())
        };
        for (label, name) in [
            ("18446744073709551614", "18446744073709551614"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9007199254740991.0", "9007199254740991"),
            ("-0.0", "0"),
        ] {
            assert_eq!(class(label), Ok(Label::Class(name.into())));
        }
        for label in ["18446744073709551616", "9007199254740993.0", "-1e17", "1e300"] {
            let refused = class(label).unwrap_err().to_string();
            assert!(refused.contains("send it as a string"), "{label}: {refused}");
        }
    }

    #[test]
    fn numbers_beyond_the_bound_of_the_engine_are_refused() {
        for (body, task, what) in [
            (r#"{"features":[1,1.1e16]}"#, Task::Classification, "feature 1 "),
            (r#"{"features":{"a":-1.1e16}}"#, Task::Classification, "feature \"a\" "),
            (r#"{"features":[1],"label":1.1e16}"#, Task::Regression, "the label "),
            (r#"{"features":[1],"label":18446744073709551615}"#, Task::Regression, "the label "),
        ] {
            let refused = read(body, task).unwrap_err().to_string();
            assert_eq!(refused, format!("{what}is beyond ±1e16"));
        }
        assert!(read(r#"{"features":[1e16,-1e16],"label":-1e16}"#, Task::Regression).is_ok());
    }

    #[test]
    fn a_signal_for_features_and_features_for_a_signal_are_refused() {
        assert!(signal_input(vec![1.0, 2.0], Task::Classification).is_err());
        assert!(read(r#"{"features":[1]}"#, Task::Patterns).is_err());
        assert!(signal_input(vec![1.0], Task::Patterns).is_err());
        for sample in [f32::INFINITY, f32::NAN, -2e15] {
            assert!(signal_input(vec![1.0, sample], Task::Patterns).is_err(), "{sample}");
        }
        assert!(signal_input(vec![1e15, -1e15], Task::Patterns).is_ok());
    }

    #[test]
    fn a_whole_signal_comes_by_its_samples_or_by_its_channels() {
        let task = Task::TimeSeriesClassification;
        let input = |body: &str| read(body, task).map(|event| event.input);
        assert_eq!(input(r#"{"signal":[1,2.5]}"#), Ok(Input::Signal(vec![1.0, 2.5])));
        assert_eq!(input(r#"{"signal":[[1,2]]}"#), Ok(Input::Signal(vec![1.0, 2.0])));
        assert_eq!(input(r#"{"signal":[[1,2],[3,4]]}"#), Ok(Input::Channels(vec![vec![1.0, 2.0], vec![3.0, 4.0]])));
        for (body, why) in [
            (r#"{"signal":[]}"#.to_owned(), "the signal has no samples"),
            (r#"{"signal":[[],[]]}"#.to_owned(), "the signal has no samples"),
            (r#"{"signal":[[1,2],[3]]}"#.to_owned(), "channel 1 of the signal has 1 samples and channel 0 has 2"),
            (r#"{"signal":[1,2e15]}"#.to_owned(), "sample 1 of the signal is beyond"),
            (r#"{"signal":[[1],[2e15]]}"#.to_owned(), "sample 0 of channel 1 of the signal is beyond"),
            (r#"{"signal":[1,[2]]}"#.to_owned(), "samples beside channels"),
            (r#"{"signal":[1,null]}"#.to_owned(), "null, expected a sample, which is a number"),
            (r#"{"signal":[1],"features":[1]}"#.to_owned(), "both `features` and `signal`"),
            (r#"{"label":"a"}"#.to_owned(), "missing field `features`, or `signal`"),
            (r#"{"features":[1]}"#.to_owned(), "send signal instead of features"),
            (r#"{"signal":[1],"label":0.5}"#.to_owned(), "a TimeSeriesClassification domain takes strings"),
            (format!(r#"{{"signal":[{}0]}}"#, "0,".repeat(SIGNAL_MAX)), "the signal has 65537 samples"),
            (format!(r#"{{"signal":[{}[0]]}}"#, "[0],".repeat(CHANNELS_MAX)), "the signal has 65 channels"),
        ] {
            let refused = input(&body).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        for other in [Task::Classification, Task::Regression, Task::Patterns, Task::Governed] {
            assert!(matches!(read(r#"{"signal":[1,2]}"#, other), Err(WireError::Unfit(_))), "{other:?}");
        }
        assert!(signal_input(vec![1.0, 2.0], task).is_err());
    }
}
