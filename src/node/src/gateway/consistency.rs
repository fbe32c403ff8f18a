//! How fresh an answer has to be: that of the owner, or that of a copy which is a little behind.

use hebb_engine::{Entry, Outcome};
use hebb_log::{Domain, PartitionKey};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::dispatch::Manner;
use super::reply::Failure;

/// What a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Consistency {
    /// Everything that was acknowledged before is in the answer; it goes through the log to the owner.
    #[default]
    Latest,
    /// As of `engine.syncInterval` ago at most; it needs no owner.
    Eventual,
}

/// The query of a read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    #[serde(default)]
    pub consistency: Consistency,
}

/// Where the answer to an eventual read comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Staleness {
    /// The partition's number.
    pub partition: u32,
    /// By the gateway's copy, or by the owner after all.
    pub served_by: ServedBy,
    /// How long ago everything that is in the log was in the answer, at most.
    pub age_ms: f64,
    /// The last entry that the copy had applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// Who answered an eventual read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServedBy {
    Copy,
    Owner,
}

/// Answers a read of a partition; of an eventual one with where the answer comes from.
pub async fn read(
    shared: &Shared,
    domain: &Domain,
    partition: &PartitionKey,
    entry: &Entry,
    consistency: Consistency,
    manner: impl Into<Manner>,
) -> Result<(Outcome, Option<Staleness>), Failure> {
    let is_eventual = consistency == Consistency::Eventual;
    if is_eventual && let Some(answered) = shared.followers.ask(partition, &domain.config, entry).await? {
        let staleness = Staleness {
            partition: partition.index,
            served_by: ServedBy::Copy,
            age_ms: answered.age.as_secs_f64() * 1e3,
            position: Some(answered.position.to_string()),
        };
        return Ok((answered.outcome, Some(staleness)));
    }
    let outcome = shared.dispatcher.submit(partition, entry.encode(), manner).await?;
    let by_owner = || Staleness { partition: partition.index, served_by: ServedBy::Owner, age_ms: 0.0, position: None };
    Ok((outcome, is_eventual.then(by_owner)))
}
