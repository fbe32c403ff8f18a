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

use crate::context::Context;

/// Key of the record in its ConfigMap.
const KEY: &str = "record.json";
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
}

/// The past of one policy.
pub struct Past {
    pub record: Record,
    pub history: History,
    /// What the ConfigMap holds.
    stored: String,
    seen_at: Instant,
}

/// The pasts of all policies, by uid.
#[derive(Default)]
pub struct Pasts {
    pasts: Mutex<HashMap<String, Past>>,
    results: Mutex<HashMap<String, (Instant, Vec<Came>)>>,
}

fn record_name(policy: &AlertPolicy) -> String {
    format!("{}-alert-record", policy.name_any())
}

fn uid(policy: &AlertPolicy) -> String {
    policy.uid().unwrap_or_default()
}

impl Pasts {
    /// The past of a policy, from memory or from where it is stored; nobody else has it until it is put back.
    pub async fn take(
        &self,
        context: &Context,
        object: &AlertPolicy,
        policy: &Arc<Policy>,
    ) -> Result<Past, StoreError> {
        let known = self.pasts.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid(object));
        let mut past = match known {
            Some(past) => past,
            None => load(context, object, policy).await?,
        };
        // A changed spec may look at other indicators, or further back.
        let mut history = policy.history();
        history.inherit(past.history);
        past.history = history;
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid(object));
        for came in results.map(|(_, results)| results).unwrap_or_default() {
            past.record.note(came, Timestamp::now());
        }
        Ok(past)
    }

    /// Keeps the past for the next pass. Those of policies that nobody has looked at for long are gone.
    pub fn put_back(&self, object: &AlertPolicy, past: Past) {
        let mut pasts = self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        pasts.insert(uid(object), Past { seen_at: Instant::now(), ..past });
        pasts.retain(|_, past| past.seen_at.elapsed() < FORGET_AFTER);
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|_, (at, _)| at.elapsed() < FORGET_AFTER);
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

async fn load(context: &Context, object: &AlertPolicy, policy: &Policy) -> Result<Past, StoreError> {
    let name = record_name(object);
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let found = api.get_opt(&name).await.map_err(|source| StoreError::Read { name: name.clone(), source })?;
    let stored = found.and_then(|found| found.data).and_then(|mut data| data.remove(KEY)).unwrap_or_default();
    let record = match stored.as_str() {
        "" => Record::default(),
        json => Record::from_json(json).map_err(|source| StoreError::Unreadable { name, source })?,
    };
    Ok(Past { record, history: policy.history(), stored, seen_at: Instant::now() })
}

impl Past {
    /// Makes `record` the policy's record, and stores it where it differs from what is stored.
    pub async fn store(&mut self, context: &Context, object: &AlertPolicy, record: Record) -> Result<(), StoreError> {
        let json = record.to_json().map_err(StoreError::TooLarge)?;
        let nothing = self.stored.is_empty() && record == Record { mode: record.mode, ..Record::default() };
        if json == self.stored || nothing {
            self.record = record;
            return Ok(());
        }
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
        api.patch(&name, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&body))
            .await
            .map_err(|source| StoreError::Write { name, source })?;
        // Only now: what isn't stored hasn't been decided, and is decided again by the next pass.
        self.record = record;
        self.stored = json;
        Ok(())
    }
}
