//! Objects that the types can't read, stored under an older or newer definition: each is told what is wrong with it, and
//! harms no other.

use hebb_api::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::conditions::{Desired, merge};
use crate::context::Context;

/// Says on the object why it can't be worked with; its children stay as they are.
pub async fn refuse<K>(invalid: &InvalidObject, context: &Context) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let name = invalid.metadata.name.clone().unwrap_or_default();
    let namespace = invalid.metadata.namespace.clone().unwrap_or_default();
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let Some(found) = api.get_opt(&name).await? else { return Ok(()) };
    let former = &found.data["status"];
    let status = status(former, &invalid.error, found.metadata.generation, Timestamp::now());
    if status == *former {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER).force();
    context.metrics.wrote("unreadable/status", "apply");
    match api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    }
    context
        .tell_of(found.object_ref(&resource), EventType::Warning, "Unreadable", "Observe", invalid.error.clone())
        .await;
    Ok(())
}

/// The former status with the error in it. What else stood there stays: the pinned image above all.
fn status(former: &Value, error: &str, generation: Option<i64>, now: Timestamp) -> Value {
    let standing: Vec<Condition> = serde_json::from_value(former["conditions"].clone()).unwrap_or_default();
    let message = format!("the spec can't be read: {error}");
    let wanted = vec![
        Desired::new("Ready", false, "Unreadable", message.clone()),
        Desired::new("Reconciling", false, "Unreadable", message.clone()),
        Desired::new("Stalled", true, "Unreadable", message),
    ];
    let mut conditions = merge(&standing, wanted, generation, now);
    conditions
        .extend(standing.into_iter().filter(|old| !["Ready", "Reconciling", "Stalled"].contains(&old.type_.as_str())));
    let mut status = former.as_object().cloned().unwrap_or_default();
    status.insert("observedGeneration".to_owned(), json!(generation));
    status.insert("conditions".to_owned(), json!(conditions));
    Value::Object(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_again_changes_nothing_and_the_pinned_image_stays() {
        let former = json!({"image": "hebb:1"});
        let first = status(&former, "unknown variant", Some(1), Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(9).unwrap();
        assert_eq!(status(&first, "unknown variant", Some(1), later), first);
        assert!(first["conditions"][2]["message"].as_str().unwrap().contains("unknown variant"));
        assert_eq!(first["image"], "hebb:1");
    }
}
