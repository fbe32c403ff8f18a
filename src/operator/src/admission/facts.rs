//! Asks the API server what of the things that an object names is there. What can't be found out in time is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use hebb_alert::notify::Egress;
use hebb_api::{LearningCluster, names};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::mention::Thing;
use crate::learning_cluster::observe;

/// How long finding out may take: a good part of it is left of the time that the API server gives for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Questions of one review that are under way at once.
const AT_ONCE: usize = 8;
/// Things that are asked about for one review: more than a cluster has children, and a policy receivers.
const THINGS_MAX: usize = 128;

/// What is known when a verdict is found.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Of what was asked about; what isn't here is unknown.
    pub found: BTreeMap<Thing, Found>,
    /// What receivers may reach.
    pub egress: Egress,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Missing,
    There,
    /// A Secret with these keys.
    Keys(BTreeSet<String>),
    /// It can't be used, and why.
    Unusable(String),
    /// An object that nobody controls, Hebb neither.
    Unowned,
    /// An object that somebody else controls.
    OwnedBy(String),
}

/// Finds out about things in a namespace.
pub async fn find(client: &Client, namespace: &str, things: BTreeSet<Thing>) -> BTreeMap<Thing, Found> {
    let deadline = Instant::now() + DEADLINE;
    let asked = things.into_iter().take(THINGS_MAX).map(|thing| async move {
        let found = look(client, namespace, &thing).await;
        (thing, found)
    });
    let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut facts = BTreeMap::new();
    while let Ok(Some((thing, found))) = timeout_at(deadline, answers.next()).await {
        match found {
            Ok(found) => {
                facts.insert(thing, found);
            }
            Err(error) => debug!(%error, ?thing, namespace, "can't tell whether it is there"),
        }
    }
    facts
}

async fn look(client: &Client, namespace: &str, thing: &Thing) -> Result<Found, kube::Error> {
    let there = |found: bool| if found { Found::There } else { Found::Missing };
    Ok(match thing {
        Thing::Secret(name) => {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            match secrets.get_opt(name).await? {
                Some(secret) => Found::Keys(secret.data.unwrap_or_default().into_keys().collect()),
                None => Found::Missing,
            }
        }
        Thing::Claim(name) | Thing::UsedClaim(name) => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            there(claims.get_metadata_opt(name).await?.is_some())
        }
        Thing::Cluster(name) => {
            let clusters: Api<LearningCluster> = Api::namespaced(client.clone(), namespace);
            there(clusters.get_metadata_opt(name).await?.is_some())
        }
        Thing::Clusters(labels) => {
            let clusters: Api<LearningCluster> = Api::namespaced(client.clone(), namespace);
            let one = ListParams::default().labels(labels).limit(1);
            there(!clusters.list_metadata(&one).await?.items.is_empty())
        }
        Thing::CertManager(name) => {
            let state = observe::certificate_request(client, namespace, name).await?;
            if state.is_of_manager() { Found::Unusable(state.message) } else { Found::There }
        }
        Thing::Child(kind, name) => match observe::api(client, namespace, *kind).get_metadata_opt(name).await? {
            Some(object) => owned(&object.metadata),
            None => Found::Missing,
        },
    })
}

/// Whose an object is.
fn owned(metadata: &ObjectMeta) -> Found {
    let managed = |key: &str, value: &str| {
        metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
    };
    let owners = metadata.owner_references.iter().flatten();
    match owners.into_iter().find(|owner| owner.controller == Some(true)) {
        // A former cluster of the same name, whose objects are about to go.
        Some(owner) if owner.kind == "LearningCluster" => Found::There,
        Some(owner) => Found::OwnedBy(format!("{} {}", owner.kind, owner.name)),
        None if managed("app.kubernetes.io/managed-by", names::MANAGER) => Found::There,
        None => Found::Unowned,
    }
}

#[cfg(test)]
pub mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A client of an API server that has a Secret `there`, denies `denied`, and never answers about `slow`.
    pub fn client() -> Client {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let failed = |code: u16, reason: &str| {
                (
                    code,
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
                )
            };
            let (code, body) = match path.rsplit('/').next().unwrap_or_default() {
                "slow" => std::future::pending::<(u16, Value)>().await,
                "denied" => failed(403, "Forbidden"),
                "there" => {
                    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}, "data": {"k": "eA=="}});
                    (200, secret)
                }
                _ => failed(404, "NotFound"),
            };
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        Client::new(service, "ns")
    }

    #[tokio::test]
    async fn what_cannot_be_found_out_in_time_is_no_fact() {
        let secret = |name: &str| Thing::Secret(name.to_owned());
        let asked = ["there", "gone", "denied", "slow"].map(secret).into_iter().collect();
        let found = find(&client(), "ns", asked).await;
        let known =
            [(secret("gone"), Found::Missing), (secret("there"), Found::Keys(BTreeSet::from(["k".to_owned()])))];
        assert_eq!(found, BTreeMap::from(known));
    }

    #[test]
    fn whose_an_object_is_is_told_from_its_metadata() {
        let of = |metadata: Value| owned(&serde_json::from_value(metadata).unwrap());
        let owner = |kind: &str, controller: bool| json!({"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": controller}]});
        assert_eq!(of(json!({})), Found::Unowned);
        assert_eq!(of(owner("Deployment", false)), Found::Unowned);
        assert_eq!(of(owner("Deployment", true)), Found::OwnedBy("Deployment o".to_owned()));
        assert_eq!(of(owner("LearningCluster", true)), Found::There);
        assert_eq!(of(json!({"labels": {"app.kubernetes.io/managed-by": "hebb-operator"}})), Found::There);
    }
}
