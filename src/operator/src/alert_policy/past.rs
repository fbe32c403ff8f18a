//! What a policy must not forget: its record in a ConfigMap of its own, and what came of messages and actions since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hebb_alert::{Came, History, Policy, Record, RecordError, SendError};
use hebb_api::{AlertPolicy, names};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
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
    /// What the ConfigMap holds, empty where there is no record. Nothing where that isn't known: before it is read, and after
    /// a write of which nobody knows what became of it.
    stored: Option<String>,
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
        let json = found.and_then(|found| found.data).and_then(|mut data| data.remove(KEY)).unwrap_or_default();
        self.record = match json.as_str() {
            "" => Record::default(),
            json => Record::from_json(json).map_err(|source| StoreError::Unreadable { name, source })?,
        };
        self.stored = Some(json);
        Ok(())
    }

    /// Makes `record` the policy's record, and stores it where it differs from what is stored.
    pub async fn store(&mut self, context: &Context, object: &AlertPolicy, record: Record) -> Result<(), StoreError> {
        let json = record.to_json().map_err(StoreError::TooLarge)?;
        let stored = self.stored.as_ref();
        let nothing =
            stored.is_none_or(String::is_empty) && record == Record { mode: record.mode, ..Record::default() };
        if stored.is_some_and(|stored| *stored == json) || nothing {
            self.record = record;
            return Ok(());
        }
        // Until there is an answer it isn't known what is stored, also where a deadline cuts this off.
        self.stored = None;
        write(context, object, &json).await?;
        // Only now: what isn't stored hasn't been decided, and is decided again by the next pass.
        self.record = record;
        self.stored = Some(json);
        Ok(())
    }
}

/// Writes the record.
async fn write(context: &Context, object: &AlertPolicy, json: &str) -> Result<(), StoreError> {
    let name = record_name(object);
    let namespace = object.namespace().unwrap_or_default();
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "hebb", "app.kubernetes.io/managed-by": names::MANAGER},
            "ownerReferences": [kube::Resource::controller_owner_ref(object, &())],
        },
        "data": {KEY: json},
    });
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    context.metrics.wrote("configmaps", "apply");
    let written = api.patch(&name, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&body)).await;
    written.map(drop).map_err(|source| StoreError::Write { name, source })
}
