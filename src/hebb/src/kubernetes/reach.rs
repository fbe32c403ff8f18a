//! The way to a LearningCluster, and the errors on it.

use std::time::{Duration, Instant};

use clap::Args;
use hebb_api::LearningCluster;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};

/// An answer of the API server comes within this time or not at all.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at an object that is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Names that an error lists.
const NAMES_MAX: usize = 10;

/// Where the LearningCluster is.
#[derive(Args, Clone, Default)]
pub struct Reach {
    /// Namespace [default: that of the context]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long)]
    pub context: Option<String>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error("there is no way to a cluster: set KUBECONFIG, or name a --context of it")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the cluster knows no {0}: are the definitions installed? `hebb crd | kubectl apply --server-side -f -`")]
    NotInstalled(&'static str),
    #[error("there is no {kind} {name} in namespace {namespace}; {}", listed(.others))]
    NotFound { kind: &'static str, name: String, namespace: String, others: Vec<String> },
    #[error("can't {what}")]
    Call { what: &'static str, source: Box<kube::Error> },
    #[error("{what}: not within {} s", limit.as_secs())]
    Late { what: String, limit: Duration },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "it has none: say --namespace".to_owned();
    }
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    format!("it has {}{more}", names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", "))
}

/// What went wrong with a call.
pub fn call(what: &'static str) -> impl FnOnce(kube::Error) -> ReachError {
    move |source| ReachError::Call { what, source: Box::new(source) }
}

impl Reach {
    /// A client and the namespace. Without a deadline a connection may stay open for as long as it likes, as a log that is
    /// followed does.
    pub async fn client(&self, has_deadline: bool) -> Result<(Client, String), ReachError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = |error: Box<dyn std::error::Error + Send + Sync>| ReachError::Config(error);
        let mut found = match self.context {
            Some(_) => Config::from_kubeconfig(&options).await.map_err(|error| config(error.into()))?,
            None => Config::infer().await.map_err(|error| config(error.into()))?,
        };
        found.read_timeout = has_deadline.then_some(DEADLINE);
        let namespace = self.namespace.clone().unwrap_or_else(|| found.default_namespace.clone());
        let client = Client::try_from(found).map_err(|error| config(error.into()))?;
        Ok((client, namespace))
    }

    /// A LearningCluster that is there.
    pub async fn cluster(&self, name: &str) -> Result<(Found, LearningCluster), ReachError> {
        let (client, namespace) = self.client(true).await?;
        let cluster = named(&client, &namespace, name, "LearningCluster").await?;
        Ok((Found { client, namespace, name: name.to_owned() }, cluster))
    }
}

/// An object that is there; else the error says which ones are.
pub async fn named<K>(client: &Client, namespace: &str, name: &str, kind: &'static str) -> Result<K, ReachError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    if let Some(found) = api.get_opt(name).await.map_err(call("read the object"))? {
        return Ok(found);
    }
    match api.list_metadata(&ListParams::default().limit(NAMES_MAX as u32 + 1)).await {
        Ok(list) => Err(ReachError::NotFound {
            kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            others: list.items.iter().map(ResourceExt::name_any).collect(),
        }),
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(ReachError::NotInstalled(kind)),
        Err(error) => Err(call("list the objects")(error)),
    }
}

/// A LearningCluster that was there.
pub struct Found {
    pub client: Client,
    pub namespace: String,
    pub name: String,
}

impl Found {
    /// Objects of its namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Changes some fields.
    pub async fn change(&self, fields: &Value) -> Result<LearningCluster, ReachError> {
        let api: Api<LearningCluster> = self.api();
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(fields))
            .await
            .map_err(call("change the LearningCluster"))
    }

    /// Sets an annotation.
    pub async fn annotate(&self, annotation: &str, value: &str) -> Result<LearningCluster, ReachError> {
        self.change(&json!({"metadata": {"annotations": {annotation: value}}})).await
    }

    /// Looks at it until there is an answer.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        ask: impl Fn(&LearningCluster) -> Option<T>,
    ) -> Result<T, ReachError> {
        let since = Instant::now();
        loop {
            let cluster = named(&self.client, &self.namespace, &self.name, "LearningCluster").await?;
            if let Some(answer) = ask(&cluster) {
                return Ok(answer);
            }
            if since.elapsed() > limit {
                return Err(ReachError::Late { what: what.to_owned(), limit });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A word that no request had before.
pub fn token() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ").to_string()
}

/// A condition of the status.
pub fn condition<'a>(cluster: &'a LearningCluster, type_: &str) -> Option<&'a Condition> {
    cluster.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition is true.
pub fn is_true(cluster: &LearningCluster, type_: &str) -> bool {
    condition(cluster, type_).is_some_and(|condition| condition.status == "True")
}

/// Where nobody acts on a request, and why.
pub fn left_alone(cluster: &LearningCluster) -> Option<&'static str> {
    if cluster.annotations().get(hebb_api::names::PAUSED_ANNOTATION).is_some_and(|value| value == "true") {
        return Some("it is paused: remove the annotation hebb.dev/paused first");
    }
    cluster.spec.suspend.then_some("it is suspended: set spec.suspend to false first")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_there_is() {
        let error = |others: &[&str]| {
            ReachError::NotFound {
                kind: "LearningCluster",
                name: "dmo".to_owned(),
                namespace: "ns".to_owned(),
                others: others.iter().map(|name| (*name).to_owned()).collect(),
            }
            .to_string()
        };
        assert_eq!(error(&["demo", "other"]), "there is no LearningCluster dmo in namespace ns; it has demo, other");
        assert_eq!(error(&[]), "there is no LearningCluster dmo in namespace ns; it has none: say --namespace");
        let many: Vec<&str> = std::iter::repeat_n("a", NAMES_MAX + 1).collect();
        assert!(error(&many).ends_with("a, …"));
    }

    #[test]
    fn a_cluster_that_is_left_alone_says_so() {
        let mut cluster = LearningCluster::default();
        assert_eq!(left_alone(&cluster), None);
        cluster.spec.suspend = true;
        assert!(left_alone(&cluster).is_some_and(|why| why.contains("spec.suspend")));
        cluster.metadata.annotations =
            Some([(hebb_api::names::PAUSED_ANNOTATION.to_owned(), "true".to_owned())].into());
        assert!(left_alone(&cluster).is_some_and(|why| why.contains("paused")));
    }
}
