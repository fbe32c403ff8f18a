//! Everything about a policy that must survive a restart and a change of leader: one bounded document. The caller stores it
//! before it carries out a decision, and again afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hebb_api::Mode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::action::{ActionLog, finish};
use crate::message::{Labels, Message};
use crate::outbox::{next_attempt, receipt};
use crate::retry::{Deliveries, SendError};
use crate::state::Alert;

/// The version that this code writes.
const VERSION: u32 = 1;
/// Alerts that are followed; further ones are counted and wait for a place.
pub const ALERTS_MAX: usize = 128;
/// Groups that are followed.
pub const GROUPS_MAX: usize = 128;
/// Messages that wait for their delivery. A full outbox takes no more: the groups keep what they have to tell.
pub const OUTBOX_MAX: usize = 32;
/// Messages that are remembered lest they are told twice.
pub const DEDUP_MAX: usize = 128;
/// Runs of actions that are followed: one for each action and target.
pub const ACTIONS_MAX: usize = 256;
/// Bytes of the document: an object of Kubernetes may have a million and a half, a ConfigMap one.
pub const RECORD_BYTES_MAX: usize = 900_000;

/// What is remembered of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of this document.
    pub version: u32,
    /// The mode that the policy had.
    pub mode: Mode,
    /// The alerts that aren't inactive, by fingerprint.
    #[serde(default)]
    pub alerts: BTreeMap<String, Alert>,
    /// Who has been told what, by the group's key.
    #[serde(default)]
    pub groups: BTreeMap<String, Group>,
    /// Messages that wait for their delivery, oldest first.
    #[serde(default)]
    pub outbox: Vec<Intent>,
    /// Messages of late, by receiver, severity and title.
    #[serde(default)]
    pub dedup: BTreeMap<String, Told>,
    /// How deliveries went, by receiver.
    #[serde(default)]
    pub deliveries: BTreeMap<String, Deliveries>,
    /// How runs of actions went, by action and target.
    #[serde(default)]
    pub actions: BTreeMap<String, ActionLog>,
    /// Number of alerts that found no place at the last evaluation.
    #[serde(default)]
    pub left_out: usize,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: VERSION,
            mode: Mode::default(),
            alerts: BTreeMap::new(),
            groups: BTreeMap::new(),
            outbox: Vec::new(),
            dedup: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            actions: BTreeMap::new(),
            left_out: 0,
        }
    }
}

/// Alerts that are told together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Key of the route.
    pub route: String,
    /// The labels that its alerts have in common.
    pub labels: Labels,
    /// When it was first seen.
    pub created_at: Timestamp,
    /// When it is looked at next.
    pub next_at: Timestamp,
    /// Since when somebody has had to be told, from which escalation counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firing_since: Option<Timestamp>,
    /// What each receiver has been told, or will be by the outbox.
    #[serde(default)]
    pub told: BTreeMap<String, Told>,
    /// Number of messages so far.
    #[serde(default)]
    pub messages: u64,
}

/// What a receiver has been told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// The alerts that it takes for firing, by fingerprint.
    #[serde(default)]
    pub firing: BTreeSet<String>,
    /// Those of them whose actions were tried as often as allowed.
    #[serde(default)]
    pub exhausted: BTreeSet<String>,
}

/// A message that has been decided on. It is stored before it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// The same for every attempt.
    pub key: String,
    /// Key of the group.
    pub group: String,
    /// Name of the receiver.
    pub receiver: String,
    /// When it was decided on.
    pub created_at: Timestamp,
    /// What is sent.
    pub message: Message,
    /// Attempts that failed.
    #[serde(default)]
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: Timestamp,
    /// Until when somebody is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_until: Option<Timestamp>,
    /// When it failed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// What the receiver had been told before, in case it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Told>,
    /// What it is remembered by lest it is told twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<String>,
}

/// What came of something that a decision asked for.
#[derive(Clone, Debug)]
pub enum Came {
    /// A message was delivered, or not.
    Sent {
        /// Key of the message.
        key: String,
        /// What the receiver made of it.
        outcome: Result<(), SendError>,
    },
    /// An action was run, or not.
    Ran {
        /// Id of the run.
        run: String,
        /// What came of it.
        outcome: Result<(), String>,
    },
}

/// Why a record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not of its shape.
    #[error("the record can't be read or written")]
    Shape(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("the record has version {0}, this program knows versions up to {VERSION}")]
    Version(u32),
    /// Too long.
    #[error("the record has {0} bytes, at most {RECORD_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

impl Record {
    /// Reads what [`Record::to_json`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] for another shape and for a later version.
    pub fn from_json(json: &str) -> Result<Self, RecordError> {
        if RECORD_BYTES_MAX < json.len() {
            return Err(RecordError::TooLarge(json.len()));
        }
        let record: Self = serde_json::from_str(json)?;
        if VERSION < record.version { Err(RecordError::Version(record.version)) } else { Ok(record) }
    }

    /// Writes it as JSON. Equal records are equal texts.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] when the bounds on its parts weren't enough.
    pub fn to_json(&self) -> Result<String, RecordError> {
        let json = serde_json::to_string(self)?;
        if RECORD_BYTES_MAX < json.len() { Err(RecordError::TooLarge(json.len())) } else { Ok(json) }
    }

    /// Takes note of what came of a decision. The caller stores the record with the next decision.
    pub fn note(&mut self, came: Came, now: Timestamp) {
        match came {
            Came::Sent { key, outcome } => {
                receipt(self, &key, outcome.as_ref().copied(), now);
            }
            Came::Ran { run, outcome } => {
                finish(self, &run, outcome, now);
            }
        }
    }

    /// How long until a message can be sent or a group is looked at; nothing where neither waits.
    pub fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let groups = self.groups.values().map(|group| group.next_at).filter(|at| *at > now);
        let times = groups.chain(next_attempt(self, now));
        times.min().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
    }

    /// Takes note of the policy's mode: what a dry run pretended to have told and done was neither, and what waits to be told
    /// isn't in a dry run.
    pub(crate) fn enter(&mut self, mode: Mode) {
        if self.mode == mode {
            return;
        }
        if self.mode == Mode::DryRun || mode == Mode::DryRun {
            self.outbox.clear();
            self.groups.clear();
            self.dedup.clear();
        }
        if self.mode == Mode::DryRun {
            self.actions.clear();
        }
        self.mode = mode;
    }

    /// Whether a message of the group to the receiver waits for its delivery.
    pub(crate) fn is_pending(&self, group: &str, receiver: &str) -> bool {
        self.outbox.iter().any(|intent| intent.group == group && intent.receiver == receiver)
    }
}
