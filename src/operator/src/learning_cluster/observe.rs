//! Reads what is there. I/O only; nothing is decided here but which secrets must be new.

use hebb_api::names::{self, Role};
use hebb_api::{LearningCluster, RedisMode};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::Value;

use super::certificate::{self, Certificate, Fault, Pems, Source, Wanted};
use super::known::{Known, Look, Recalled};
use super::plan::Live;
use super::render::Kind;
use super::topology::Secrets;
use super::upgrade::Revision;
use crate::conditions;

/// Characters of a generated password or token: 190 bits.
const SECRET_LENGTH: usize = 32;

/// The API of a kind in a namespace.
pub fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    let (group, version, name, plural) = kind.names();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// The secrets of a cluster: what stands, and new ones for what doesn't.
pub async fn secrets(
    client: &Client,
    known: &Known,
    cluster: &LearningCluster,
    domain: &str,
    now: Timestamp,
) -> Result<Secrets, kube::Error> {
    let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let own_redis = cluster.spec.redis.mode != RedisMode::External;
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read = async |name: String, key: &str| {
        if let Recalled::Text(text) = known.recall(Kind::Secret, namespace, &name) {
            return Ok(text);
        }
        // Never made anew only because no watch knows it.
        let Some(secret) = api.get_opt(&name).await? else { return Ok(new_secret()) };
        let version = secret.metadata.resource_version.unwrap_or_default();
        let stored = secret.data.and_then(|mut data| data.remove(key));
        let stored = stored.and_then(|bytes| String::from_utf8(bytes.0).ok()).filter(|text| !text.is_empty());
        if let Some(text) = &stored {
            known.remember(Kind::Secret, namespace, &name, version, text.clone());
        }
        Ok::<_, kube::Error>(stored.unwrap_or_else(new_secret))
    };
    Ok(Secrets {
        redis_password: match own_redis {
            true => Some(read(Role::Redis.object_name(name), "password").await?),
            false => None,
        },
        token: read(names::internal_secret_name(name), "token").await?,
        certificate: match certificate::source(cluster).filter(|_| own_redis) {
            Some((secret, source)) => {
                let wanted = Wanted::new(cluster, domain);
                let pems = pems(client, namespace, &secret, &source, &wanted, now).await?;
                Some(Certificate { secret, source, pems })
            }
            None => None,
        },
    })
}

/// A certificate as it stands, or a new one where Hebb makes it and there is to be one.
async fn pems(
    client: &Client,
    namespace: &str,
    secret: &str,
    source: &Source,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Result<Pems, Fault>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(secret).await?;
    if let Source::Issuer(_) = source {
        let state = certificate_request(client, namespace, secret).await?;
        if found.is_none() || state.is_of_manager() {
            return Ok(Err(state));
        }
    }
    let data = found.and_then(|found| found.data);
    let text = |key: &str| {
        let bytes = data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok().filter(|text| !text.trim().is_empty()).map(str::to_owned)
    };
    let stored = || {
        let read = |key: &'static str| text(key).ok_or(key);
        Ok::<_, &'static str>(Pems {
            certificate: read(certificate::CERTIFICATE)?,
            key: read(certificate::KEY)?,
            authority: read(certificate::AUTHORITY)?,
            authority_key: text(certificate::AUTHORITY_KEY),
        })
    };
    if *source == Source::Hebb {
        return Ok(certificate::own(stored().ok(), wanted, now));
    }
    let explained = |fault: Fault| Fault { message: format!("Secret {secret}: {}", fault.message), ..fault };
    Ok(match (&data, stored()) {
        (None, _) => Err(Fault::new(
            "SecretMissing",
            format!("Secret {secret} isn't there, or is empty: make it with tls.crt, tls.key and ca.crt"),
        )),
        (Some(_), Err(key)) => Err(Fault::new("Incomplete", format!("Secret {secret} has no text in {key}: write it"))),
        (Some(_), Ok(pems)) => certificate::check(&pems, wanted, now).map(|()| pems).map_err(explained),
    })
}

/// Why cert-manager hasn't made a Secret, if it hasn't. A kind that the API server doesn't know is answered without any details.
pub async fn certificate_request(client: &Client, namespace: &str, name: &str) -> Result<Fault, kube::Error> {
    let pending = || {
        let message =
            format!("cert-manager hasn't made Secret {name} yet: kubectl describe certificate {name} says why");
        Fault::new(certificate::PENDING, message)
    };
    match api(client, namespace, Kind::Certificate).get(name).await {
        Ok(_) => Ok(pending()),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(match answer.details.as_ref() {
            Some(details) if !details.name.is_empty() => pending(),
            _ => Fault::new(
                certificate::NO_CERT_MANAGER,
                "the API server doesn't know Certificates: install cert-manager, or make a LearningCluster without issuerRef",
            ),
        }),
        Err(kube::Error::Api(answer)) if answer.is_forbidden() => Ok(Fault::new(
            certificate::NOT_ALLOWED,
            "the operator has no rights on Certificates: set certManager.enabled of its chart",
        )),
        Err(error) => Err(error),
    }
}

/// The revision with which a cluster was ready last, by id; nothing where no record of it can be read.
pub async fn revision(
    client: &Client,
    known: &Known,
    cluster: &LearningCluster,
) -> Result<Option<(String, Revision)>, kube::Error> {
    let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
    let name = names::revision_name(cluster.metadata.name.as_deref().unwrap_or_default());
    let parse = |text: &str| {
        let (id, record) = text.split_once('\n')?;
        let revision: Revision = serde_json::from_str(record).ok()?;
        // A record that was edited is no record.
        (id == revision.id()).then(|| (revision.id(), revision))
    };
    let was_ready =
        cluster.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Initialized"));
    match known.recall(Kind::ConfigMap, namespace, &name) {
        Recalled::Text(text) => return Ok(parse(&text)),
        // There is none before the cluster was ready.
        Recalled::Missing if !was_ready => return Ok(None),
        Recalled::Missing | Recalled::Unknown => {}
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(record) = api.get_opt(&name).await? else { return Ok(None) };
    let data = record.data.unwrap_or_default();
    let part = |key: &str| data.get(key).map(String::as_str).unwrap_or_default();
    let text = format!("{}\n{}", part("id"), part("revision"));
    known.remember(
        Kind::ConfigMap,
        namespace,
        &name,
        record.metadata.resource_version.unwrap_or_default(),
        text.clone(),
    );
    Ok(parse(&text))
}

fn new_secret() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), SECRET_LENGTH)
}

/// The live objects among those that should and shouldn't be there, and that are to be looked at.
pub async fn live(client: &Client, namespace: &str, look: &Look) -> Result<Live, kube::Error> {
    let present = look.at.present.iter().map(|child| (child.kind, child.name.clone()));
    let keys = present.filter(|key| !look.missing.contains(key)).chain(look.at.absent.iter().cloned());
    let reads = keys.map(|(kind, name)| async move {
        let found = api(client, namespace, kind).get_opt(&name).await?;
        Ok::<_, kube::Error>(found.map(|found| ((kind, name), found)))
    });
    let mut live = look.workloads.clone();
    for ((kind, name), object) in futures::future::try_join_all(reads).await?.into_iter().flatten() {
        // An object that is being deleted is still in the way, and is seen again when it is gone.
        let value = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
        live.insert((kind, name), value);
    }
    Ok(live)
}

/// The Jobs that back a cluster up or restore it; none are looked for where none are wanted.
pub async fn jobs(client: &Client, cluster: &LearningCluster) -> Result<Vec<Job>, kube::Error> {
    if cluster.spec.backup.is_none() && cluster.spec.restore.is_none() {
        return Ok(Vec::new());
    }
    let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let selected = ListParams::default().labels(&format!("{}={name}", names::CLUSTER_LABEL));
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&selected).await?.items)
}

/// The pods of a cluster; what is wrong with them explains why it isn't ready.
pub async fn pods(client: &Client, cluster: &LearningCluster) -> Result<Vec<Pod>, kube::Error> {
    let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let selected = ListParams::default().labels(&format!("{}={name}", names::CLUSTER_LABEL));
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&selected).await?.items)
}

/// A number in a live object.
pub fn number(object: Option<&Value>, path: &str) -> i32 {
    object
        .and_then(|object| object.pointer(path))
        .and_then(Value::as_i64)
        .and_then(|number| i32::try_from(number).ok())
        .unwrap_or(0)
}
