//! The library of a domain of patterns: what is in it and in its archive, what becomes one, what is archived and comes back.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures::future::try_join_all;
use hebb_engine::{
    Control, Entry, LibraryChange, LibraryChanged, LibraryQuery, LibraryState, Outcome, PatternSummary, Query as Ask,
    SmolStr, Task,
};
use hebb_log::{Domain, PartitionKey};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::consistency::{self, Consistency, Staleness};
use super::dispatch::OnFull;
use super::http::{fresh_id, known_domain, respond};
use super::reply::{Address, Failure};
use super::wire::{self, SAMPLE_MAX, WireError};

/// Patterns in one answer, and where nothing is said.
const PATTERNS_MAX: u32 = 1_000;
const PATTERNS: u32 = 100;
/// Samples of a shape that is looked for: an address has no room for many.
const LIKE_MAX: usize = 256;
/// Ids in one change; the engine's bound.
const IDS_MAX: usize = 1_000;

/// One pattern of a domain's library or its archive.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LibraryPattern {
    /// Where it was learned.
    pub partition: u32,
    /// Its id within the partition.
    pub id: u64,
    /// Its level.
    pub level: u8,
    /// How many segments have joined it.
    pub support: u64,
    /// Mean likeness of what joined it, 0 to 1.
    pub confidence: f32,
    /// Its curve, in units of standard deviations.
    pub prototype: Vec<f32>,
    /// Whether it is in the archive.
    pub archived: bool,
    /// Signals that its partition has learned since it was found last.
    pub unseen_for: u64,
    /// Likeness to the shape that was asked for, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
}

impl LibraryPattern {
    /// A pattern of this partition.
    pub fn new(partition: u32, pattern: hebb_engine::LibraryPattern) -> Self {
        let hebb_engine::LibraryPattern { summary, archived, unseen_for, similarity } = pattern;
        let PatternSummary { id, level, support, confidence, prototype } = summary;
        Self { partition, id, level, support, confidence, prototype, archived, unseen_for, similarity }
    }
}

/// What is asked of `GET …/patterns`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatternsQuery {
    #[serde(default)]
    consistency: Consistency,
    #[serde(default)]
    state: LibraryState,
    level: Option<u8>,
    #[serde(default)]
    min_support: u64,
    min_confidence: Option<f32>,
    limit: Option<u32>,
    /// The place behind which to go on: `next` of the answer before.
    after: Option<String>,
    /// The samples of a shape, with commas between them.
    like: Option<String>,
}

/// The place of a pattern among all of a domain: by support, then id, then partition.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    support: u64,
    id: u64,
    partition: u32,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let place = Self {
            support: parts.next()?.parse().ok()?,
            id: parts.next()?.parse().ok()?,
            partition: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(place)
    }

    /// Where a partition goes on behind it.
    fn next_of(self, partition: u32) -> (u64, u64) {
        (self.support, if partition > self.partition { self.id } else { self.id.saturating_add(1) })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.support, self.id, self.partition)
    }
}

/// What a query is, once it is checked.
struct Asked {
    query: LibraryQuery,
    after: Option<Place>,
}

impl PatternsQuery {
    fn checked(self) -> Result<Asked, Failure> {
        let bad = |why: String| Failure::Address(why);
        let share = self.min_confidence.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(bad(format!("minConfidence is {share}, and has to be from 0 to 1")));
        }
        if self.after.is_some() && self.like.is_some() {
            return Err(bad("after is for pages by support; like has one page".to_owned()));
        }
        let limit = self.limit.unwrap_or(PATTERNS);
        if !(1..=PATTERNS_MAX).contains(&limit) {
            return Err(bad(format!("limit is {limit}, and has to be from 1 to {PATTERNS_MAX}")));
        }
        let after = self.after.as_deref().map(|text| {
            Place::parse(text).ok_or_else(|| bad(format!("after is {text:?}, and has to be what next was")))
        });
        let query = LibraryQuery {
            state: self.state,
            level: self.level,
            min_support: self.min_support,
            min_confidence: share,
            from: None,
            like: self.like.as_deref().map(samples).transpose().map_err(bad)?,
            limit,
        };
        Ok(Asked { query, after: after.transpose()? })
    }
}

fn samples(text: &str) -> Result<Vec<f32>, String> {
    let sample = |text: &str| {
        let number = text.trim().parse::<f32>().ok().filter(|number| number.abs() <= SAMPLE_MAX);
        number.ok_or_else(|| format!("like has {text:?}, and takes numbers of at most {SAMPLE_MAX:e}"))
    };
    let samples = text.split(',').map(sample).collect::<Result<Vec<_>, _>>()?;
    if (2..=LIKE_MAX).contains(&samples.len()) {
        return Ok(samples);
    }
    Err(format!("like has {} samples, and takes 2 to {LIKE_MAX}", samples.len()))
}

/// The answer to `GET …/patterns`.
#[derive(Serialize)]
struct PatternsBody {
    patterns: Vec<LibraryPattern>,
    /// What `after` takes for what follows; nothing where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Of an eventual read, for each partition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    staleness: Vec<Staleness>,
}

pub async fn patterns(
    State(shared): State<Arc<Shared>>,
    Address(Path(name)): Address<Path<String>>,
    Address(Query(query)): Address<Query<PatternsQuery>>,
) -> Response {
    let started = Instant::now();
    let result = async {
        let consistency = query.consistency;
        let Asked { query, after } = query.checked()?;
        let domain = known_domain(&shared, &name).await?;
        check_task(&domain)?;
        let (limit, by_likeness) = (query.limit as usize, query.like.is_some());
        let asked = (0..domain.partitions).map(|index| {
            let (shared, domain) = (&shared, &domain);
            let partition = PartitionKey { domain: domain.name.clone(), index };
            let query = LibraryQuery { from: after.map(|place| place.next_of(index)), ..query.clone() };
            async move {
                let entry = Entry::Query(Ask::Library(query));
                match consistency::read(shared, domain, &partition, &entry, consistency, OnFull::Refuse).await? {
                    (Outcome::Library(patterns), staleness) => {
                        let patterns = patterns.into_iter().map(move |pattern| LibraryPattern::new(index, pattern));
                        Ok((patterns, staleness))
                    }
                    _ => Err(Failure::Unexpected),
                }
            }
        });
        let (found, staleness): (Vec<_>, Vec<_>) = try_join_all(asked).await?.into_iter().unzip();
        let mut patterns: Vec<LibraryPattern> = found.into_iter().flatten().collect();
        let rank = |pattern: &LibraryPattern| (Reverse(pattern.support), pattern.id, pattern.partition);
        patterns.sort_by(|a, b| {
            let alike = |pattern: &LibraryPattern| pattern.similarity.unwrap_or(0.0);
            alike(b).total_cmp(&alike(a)).then_with(|| rank(a).cmp(&rank(b)))
        });
        patterns.truncate(limit);
        let last = patterns.last().filter(|_| patterns.len() == limit && !by_likeness);
        let next = last.map(|LibraryPattern { support, id, partition, .. }| {
            Place { support: *support, id: *id, partition: *partition }.to_string()
        });
        Ok(PatternsBody { patterns, next, staleness: staleness.into_iter().flatten().collect() })
    };
    respond(&shared, "patterns", started, result.await)
}

/// What the bodies of all changes have in common.
struct Change {
    id: SmolStr,
    partition: Option<u32>,
    change: LibraryChange,
}

/// The body of a change.
trait ChangeBody: for<'de> Deserialize<'de> {
    fn checked(self) -> Result<Change, WireError>;
}

/// The body of `patterns:merge`: ids, or a similarity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, partition, and ids or similarity")]
struct MergeBody {
    /// Names the change, which makes a retry safe; given by the gateway when absent.
    id: Option<SmolStr>,
    /// The partition whose patterns they are.
    partition: Option<u32>,
    ids: Option<Vec<u64>>,
    similarity: Option<f32>,
}

/// The body of `patterns:archive`: ids, or a rule of which all that is said has to be true.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object with id, partition, and ids or supportBelow and unseenFor"
)]
struct ArchiveBody {
    id: Option<SmolStr>,
    partition: Option<u32>,
    ids: Option<Vec<u64>>,
    support_below: Option<u64>,
    unseen_for: Option<u64>,
}

/// The body of `patterns:restore`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with id, partition and ids")]
struct RestoreBody {
    id: Option<SmolStr>,
    partition: Option<u32>,
    ids: Vec<u64>,
}

fn unfit(why: &str) -> WireError {
    WireError::Unfit(why.to_owned())
}

/// The id of a change, and a bound on those of its patterns.
fn named(id: Option<SmolStr>, change: LibraryChange, partition: Option<u32>) -> Result<Change, WireError> {
    if let Some(id) = &id {
        wire::check_name("the id", id)?;
    }
    if let LibraryChange::Merge { ids } | LibraryChange::Archive { ids } | LibraryChange::Restore { ids } = &change {
        let found = ids.len();
        if found == 0 {
            return Err(unfit("ids is empty"));
        }
        if found > IDS_MAX {
            return Err(WireError::TooLarge { what: "ids", unit: "ids", found, max: IDS_MAX });
        }
    }
    Ok(Change { id: id.unwrap_or_else(fresh_id), partition, change })
}

impl ChangeBody for MergeBody {
    fn checked(self) -> Result<Change, WireError> {
        let change = match (self.ids, self.similarity) {
            (Some(ids), None) => LibraryChange::Merge { ids },
            (None, Some(similarity)) if similarity > 0.0 && similarity <= 1.0 => {
                LibraryChange::MergeAlike { similarity }
            }
            (None, Some(_)) => return Err(unfit("similarity has to be above 0 and at most 1")),
            (Some(_), Some(_)) | (None, None) => return Err(unfit("merge takes ids or similarity")),
        };
        named(self.id, change, self.partition)
    }
}

impl ChangeBody for ArchiveBody {
    fn checked(self) -> Result<Change, WireError> {
        let change = match (self.ids, self.support_below, self.unseen_for) {
            (Some(ids), None, None) => LibraryChange::Archive { ids },
            (None, support_below, unseen_for) if support_below.or(unseen_for).is_some() => {
                LibraryChange::ArchiveRule { support_below, unseen_for }
            }
            _ => return Err(unfit("archive takes ids, or supportBelow, unseenFor or both")),
        };
        named(self.id, change, self.partition)
    }
}

impl ChangeBody for RestoreBody {
    fn checked(self) -> Result<Change, WireError> {
        named(self.id, LibraryChange::Restore { ids: self.ids }, self.partition)
    }
}

/// What a change did in one partition.
#[derive(Serialize)]
struct ChangedBody {
    partition: u32,
    #[serde(flatten)]
    changed: LibraryChanged,
}

/// The answer to a change.
#[derive(Serialize)]
struct ChangesBody {
    id: SmolStr,
    partitions: Vec<ChangedBody>,
}

pub async fn merge(shared: State<Arc<Shared>>, name: Address<Path<String>>, body: Body) -> Response {
    change::<MergeBody>(shared, name, body, "patterns-merge").await
}

pub async fn archive(shared: State<Arc<Shared>>, name: Address<Path<String>>, body: Body) -> Response {
    change::<ArchiveBody>(shared, name, body, "patterns-archive").await
}

pub async fn restore(shared: State<Arc<Shared>>, name: Address<Path<String>>, body: Body) -> Response {
    change::<RestoreBody>(shared, name, body, "patterns-restore").await
}

async fn change<B: ChangeBody>(
    State(shared): State<Arc<Shared>>,
    Address(Path(name)): Address<Path<String>>,
    body: Body,
    operation: &str,
) -> Response {
    let started = Instant::now();
    let result = async {
        let body = shared.bodies.read(body).await?;
        let Change { id, partition, change } = wire::parse::<B>(&body)?.checked()?;
        let domain = known_domain(&shared, &name).await?;
        let partitions = targets(&domain, partition, &change)?;
        let entry = Entry::Control(Control::Library { id: id.clone(), change }).encode();
        let changed = partitions.map(|index| {
            let (shared, entry) = (&shared, entry.clone());
            let key = PartitionKey { domain: domain.name.clone(), index };
            async move {
                match shared.dispatcher.submit(&key, entry, OnFull::Refuse).await? {
                    Outcome::LibraryChanged(changed) => Ok(ChangedBody { partition: index, changed: *changed }),
                    Outcome::Rejected(rejection) => Err(rejection.into()),
                    _ => Err(Failure::Unexpected),
                }
            }
        });
        Ok(ChangesBody { id, partitions: try_join_all(changed).await? })
    };
    respond(&shared, operation, started, result.await)
}

fn check_task(domain: &Domain) -> Result<(), WireError> {
    match domain.config.task {
        Task::Patterns => Ok(()),
        task => Err(WireError::Unfit(format!("the domain {} is a {task:?} domain and has no patterns", domain.name))),
    }
}

/// The partitions that a change is for: the one that is named, or all, whose patterns have no ids in common.
fn targets(domain: &Domain, partition: Option<u32>, change: &LibraryChange) -> Result<std::ops::Range<u32>, WireError> {
    check_task(domain)?;
    let Domain { name, partitions, .. } = domain;
    let by_rule = matches!(change, LibraryChange::MergeAlike { .. } | LibraryChange::ArchiveRule { .. });
    match partition {
        Some(index) if index < *partitions => Ok(index..index + 1),
        Some(_) => Err(WireError::Unfit(format!("the domain {name} has {partitions} partitions, from 0 on"))),
        None if by_rule || *partitions == 1 => Ok(0..*partitions),
        None => Err(WireError::Unfit(format!(
            "the domain {name} has {partitions} partitions, each with ids of its own: name the partition"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::PartitionConfig;

    use super::*;

    fn read<B: ChangeBody>(body: &str) -> Result<Change, WireError> {
        wire::parse::<B>(body.as_bytes())?.checked()
    }

    #[test]
    fn a_change_is_by_ids_or_by_a_rule() {
        let merge = read::<MergeBody>(r#"{"id":"c","ids":[1,2]}"#).unwrap();
        assert_eq!((merge.id.as_str(), merge.change), ("c", LibraryChange::Merge { ids: vec![1, 2] }));
        let rule = read::<ArchiveBody>(r#"{"supportBelow":3,"unseenFor":1000}"#).unwrap();
        let expected = LibraryChange::ArchiveRule { support_below: Some(3), unseen_for: Some(1_000) };
        assert_eq!(rule.change, expected);
        for body in ["{}", r#"{"ids":[]}"#, r#"{"ids":[1],"similarity":0.9}"#, r#"{"similarity":0}"#] {
            assert!(matches!(read::<MergeBody>(body), Err(WireError::Unfit(_))), "{body}");
        }
        for body in ["{}", r#"{"ids":[1],"unseenFor":4}"#] {
            assert!(matches!(read::<ArchiveBody>(body), Err(WireError::Unfit(_))), "{body}");
        }
        let many = format!(r#"{{"ids":[{}0]}}"#, "0,".repeat(1_000));
        assert!(matches!(read::<RestoreBody>(&many), Err(WireError::TooLarge { found: 1_001, .. })));
    }

    #[test]
    fn ids_are_for_one_partition_and_rules_for_all() {
        let domain =
            |partitions| Domain { name: "d".to_owned(), partitions, config: PartitionConfig::new(Task::Patterns) };
        let (ids, rule) = (LibraryChange::Archive { ids: vec![1] }, LibraryChange::MergeAlike { similarity: 0.9 });
        assert_eq!(targets(&domain(1), None, &ids), Ok(0..1));
        assert!(targets(&domain(3), None, &ids).is_err());
        assert_eq!(targets(&domain(3), Some(2), &ids), Ok(2..3));
        assert!(targets(&domain(3), Some(3), &ids).is_err());
        assert_eq!(targets(&domain(3), None, &rule), Ok(0..3));
        let other = Domain { config: PartitionConfig::new(Task::Regression), ..domain(1) };
        assert!(targets(&other, None, &rule).is_err());
    }

    #[test]
    fn a_place_is_read_as_it_is_written_and_nothing_else_is() {
        let place = Place { support: 12, id: 5, partition: 1 };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        assert_eq!([0, 1, 2].map(|partition| place.next_of(partition)), [(12, 6), (12, 6), (12, 5)]);
        for text in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_that_cannot_be_is_refused() {
        let good = PatternsQuery { like: Some("0,1, 4,1e3".to_owned()), ..PatternsQuery::default() };
        assert_eq!(good.checked().unwrap().query.like, Some(vec![0.0, 1.0, 4.0, 1_000.0]));
        let like = |like: &str| PatternsQuery { like: Some(like.to_owned()), ..PatternsQuery::default() };
        for query in [
            like(""),
            like("1"),
            like("1,x"),
            like("1,inf"),
            like(&"1,".repeat(300)),
            PatternsQuery { min_confidence: Some(f32::NAN), ..PatternsQuery::default() },
            PatternsQuery { limit: Some(0), ..PatternsQuery::default() },
            PatternsQuery { limit: Some(1_001), ..PatternsQuery::default() },
            PatternsQuery { after: Some("x".to_owned()), ..PatternsQuery::default() },
            PatternsQuery { after: Some("1.2.3".to_owned()), ..like("1,2") },
        ] {
            assert!(query.checked().is_err());
        }
    }
}
