//! What a policy must not forget: its record in a ConfigMap of its own, and what came of messages and actions since.
//!
//! A record is written over the one that this operator read or wrote last, and over no other: of two operators that overlap
//! for a moment, one stores its decision and carries it out, and the other one reads the record anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hebb_alert::{Came, History, Policy, Record, RecordError, SendError};
use hebb_api::{AlertPolicy, names};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use tokio::sync::OwnedMutexGuard;

use crate::context::Context;

/// Key of the record in its ConfigMap.
const KEY: &str = "record.json";
/// What the name of a policy is followed by in the ConfigMap's.
const SUFFIX: &str = "-alert-record";
/// Characters of the name of an object.
const NAME_MAX: usize = 253;
/// Characters of the name of a policy.
pub const POLICY_NAME_MAX: usize = NAME_MAX - SUFFIX.len();
/// Longer than any interval of a policy.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Why a record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to read the ConfigMap {name}")]
    Read { name: String, source: kube::Error },
    #[error("failed to write the ConfigMap {name}")]
    Write { name: String, source: kube::Error },
    #[error("somebody else has written the ConfigMap {name} meanwhile")]
    Raced { name: String },
    #[error("the ConfigMap {name} holds what this version can't read; it is left as it is")]
    Unreadable { name: String, source: RecordError },
    #[error("the record of the policy has become too large")]
    TooLarge(#[source] RecordError),
    #[error("the name of the policy has {0} characters")]
    NameTooLong(usize),
}

/// The past of one policy.
pub struct Past {
    pub record: Record,
    pub history: History,
    /// Nothing where it isn't known: before it is read, and after a write of which nobody knows what became of it.
    stored: Option<Stored>,
}

/// What is stored of a policy.
struct Stored {
    /// Empty where there is no record.
    json: String,
    /// The ConfigMap as it was read or written last, by uid and resource version; nothing where there is none.
    object: Option<(String, String)>,
}

impl Stored {
    fn new(object: &ObjectMeta, json: String) -> Self {
        Self { json, object: object.uid.clone().zip(object.resource_version.clone()) }
    }
}

/// A past that one pass at a time has.
type Shared = Arc<tokio::sync::Mutex<Past>>;

/// The pasts of all policies, by uid.
#[derive(Default)]
pub struct Pasts {
    /// With when each was looked at last.
    pasts: Mutex<HashMap<String, (Instant, Shared)>>,
    results: Mutex<HashMap<String, (Instant, Vec<Came>)>>,
}

fn record_name(policy: &AlertPolicy) -> String {
    format!("{}{SUFFIX}", policy.name_any())
}

fn uid(policy: &AlertPolicy) -> String {
    policy.uid().unwrap_or_default()
}

impl Pasts {
    /// The past of a policy, from memory or from where it is stored; nobody else has it until it is let go.
    pub async fn hold(
        &self,
        context: &Context,
        object: &AlertPolicy,
        policy: &Policy,
    ) -> Result<OwnedMutexGuard<Past>, StoreError> {
        let mut past = self.of(object, policy).lock_owned().await;
        if past.stored.is_none() {
            past.load(context, object).await?;
        }
        // A changed spec may look at other indicators, or further back.
        let former = std::mem::replace(&mut past.history, policy.history());
        past.history.inherit(former);
        Ok(past)
    }

    /// Those of policies that nobody has looked at for long are let go.
    fn of(&self, object: &AlertPolicy, policy: &Policy) -> Shared {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (at, _)| at.elapsed() < FORGET_AFTER);
        let mut pasts = self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        pasts.retain(|_, (seen_at, _)| seen_at.elapsed() < FORGET_AFTER);
        let unread = || Past { record: Record::default(), history: policy.history(), stored: None };
        let (seen_at, past) =
            pasts.entry(uid(object)).or_insert_with(|| (Instant::now(), Arc::new(tokio::sync::Mutex::new(unread()))));
        *seen_at = Instant::now();
        past.clone()
    }

    /// What has come of messages and actions and isn't stored yet, oldest first.
    pub fn results(&self, object: &AlertPolicy) -> Vec<Came> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(&uid(object)).map(|(_, results)| results.clone()).unwrap_or_default()
    }

    /// The oldest `count` of [`Pasts::results`] have been stored.
    pub fn settle(&self, object: &AlertPolicy, count: usize) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, results)) = results.get_mut(&uid(object)) {
            results.drain(..count.min(results.len()));
        }
    }

    /// A message has been delivered, or not.
    pub fn sent(&self, policy: &AlertPolicy, key: String, outcome: Result<(), SendError>) {
        self.push(policy, Came::Sent { key, outcome });
    }

    /// An action has been run, or not.
    pub fn ran(&self, policy: &AlertPolicy, run: String, outcome: Result<(), String>) {
        self.push(policy, Came::Ran { run, outcome });
    }

    fn push(&self, policy: &AlertPolicy, result: Came) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, results) = results.entry(uid(policy)).or_insert_with(|| (Instant::now(), Vec::new()));
        *at = Instant::now();
        results.push(result);
    }
}

impl Past {
    /// The record with what has come of messages and actions since. It isn't the policy's record before it is stored.
    pub fn with(&self, results: &[Came], now: Timestamp) -> Record {
        let mut record = self.record.clone();
        for came in results {
            record.note(came.clone(), now);
        }
        record
    }

    async fn load(&mut self, context: &Context, object: &AlertPolicy) -> Result<(), StoreError> {
        let name = record_name(object);
        if NAME_MAX < name.len() {
            return Err(StoreError::NameTooLong(object.name_any().len()));
        }
        let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
        let found = api.get_opt(&name).await.map_err(|source| StoreError::Read { name: name.clone(), source })?;
        let found = found.unwrap_or_default();
        let json = found.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
        self.record = match json.as_str() {
            "" => Record::default(),
            json => Record::from_json(json).map_err(|source| StoreError::Unreadable { name, source })?,
        };
        self.stored = Some(Stored::new(&found.metadata, json));
        Ok(())
    }

    /// Makes `record` the policy's record, and stores it where it differs from what is stored.
    pub async fn store(&mut self, context: &Context, object: &AlertPolicy, record: Record) -> Result<(), StoreError> {
        let json = record.to_json().map_err(StoreError::TooLarge)?;
        let stored = self.stored.as_ref();
        let nothing = stored.is_none_or(|stored| stored.json.is_empty())
            && record == Record { mode: record.mode, ..Record::default() };
        if stored.is_some_and(|stored| stored.json == json) || nothing {
            self.record = record;
            return Ok(());
        }
        // Until there is an answer it isn't known what is stored, also where a deadline cuts this off.
        let former = self.stored.take().and_then(|stored| stored.object);
        let written = write(context, object, former, &json).await?;
        // Only now: what isn't stored hasn't been decided, and is decided again by the next pass.
        self.record = record;
        self.stored = Some(Stored::new(&written.metadata, json));
        Ok(())
    }
}

/// Writes the record over the `former` ConfigMap, or makes one where there was none.
async fn write(
    context: &Context,
    object: &AlertPolicy,
    former: Option<(String, String)>,
    json: &str,
) -> Result<ConfigMap, StoreError> {
    let name = record_name(object);
    let namespace = object.namespace().unwrap_or_default();
    let labels = [("app.kubernetes.io/name", "hebb"), ("app.kubernetes.io/managed-by", names::MANAGER)];
    let mut body = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), json.to_owned())].into()),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let written = match former {
        Some((uid, version)) => {
            // The API server refuses another version, another object of the name, and none.
            (body.metadata.uid, body.metadata.resource_version) = (Some(uid), Some(version));
            context.metrics.wrote("configmaps", "apply");
            api.patch(&name, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&body)).await
        }
        None => {
            // An apply would take over one that somebody has made meanwhile.
            context.metrics.wrote("configmaps", "create");
            let parameters = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
            api.create(&parameters, &body).await
        }
    };
    written.map_err(|source| match source {
        kube::Error::Api(answer) if answer.is_conflict() || answer.is_already_exists() => StoreError::Raced { name },
        source => StoreError::Write { name, source },
    })
}
