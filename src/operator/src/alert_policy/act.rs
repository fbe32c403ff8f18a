//! Runs actions, away from the reconciler, and tells the next pass what came of them. Pods are never touched here: the
//! LearningCluster controller replaces them within its healing budget, and says no when that is spent.

use std::sync::Arc;
use std::time::Duration;

use hebb_alert::{Run, notify};
use hebb_api::names::Role;
use hebb_api::{ActionType, AlertPolicy, Component, LearningCluster, ScalingStrategy};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::observe::{APPROVE_ANNOTATION, Watched};
use super::tell;
use crate::context::Context;
use crate::learning_cluster::requests::{Ask, Request};

/// How long the LearningCluster controller may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Runs an action in the background.
pub fn run(context: &Arc<Context>, policy: &AlertPolicy, targets: &[Watched], run: Run) {
    let Some(watched) = targets.iter().find(|watched| watched.cluster.name_any() == run.target) else { return };
    let (context, policy, cluster) = (context.clone(), policy.clone(), watched.cluster.clone());
    tokio::spawn(async move {
        let outcome = carry_out(&context, &policy, &cluster, &run).await;
        let of = ObjectRef::from_obj(&policy);
        let what = format!("{} {} for {}", run.spec.type_.as_str(), run.spec.name, run.rule);
        match &outcome {
            Ok(done) => {
                info!(policy = %of, target = run.target, action = run.spec.name, done, "acted");
                context.tell(&cluster, EventType::Normal, "ActionRun", "Act", format!("{what}: {done}")).await;
            }
            Err(why) => {
                warn!(policy = %of, target = run.target, action = run.spec.name, why, "could not act");
                context.tell(&cluster, EventType::Warning, "ActionFailed", "Act", format!("{what}: {why}")).await;
            }
        }
        context.pasts.ran(&policy, run.id, outcome.map(drop));
        // An error says that the operator is ending.
        let _ = context.policies_changed.send(of).await;
    });
}

async fn carry_out(
    context: &Context,
    policy: &AlertPolicy,
    cluster: &LearningCluster,
    run: &Run,
) -> Result<String, String> {
    if run.uses_approval {
        withdraw_approval(context, cluster, &run.spec.name).await?;
    }
    let role = run.spec.component.map(role);
    match (run.spec.type_, role) {
        (ActionType::RestartComponent, Some(role)) => {
            ask(context, cluster, Ask::Restart { role, pods: run.pods.unwrap_or(1) }).await
        }
        (ActionType::Scale, Some(role)) => scale(context, cluster, role, run.spec.replicas.unwrap_or(1)).await,
        (ActionType::FailoverRedis, _) => ask(context, cluster, Ask::Failover).await,
        (ActionType::BoostExploration, _) => meta(context, cluster, "boost").await,
        (ActionType::ResetMetaLearning, _) => meta(context, cluster, "reset").await,
        (ActionType::Suspend, _) => {
            change(context, cluster, json!({"spec": {"suspend": true}})).await?;
            Ok("spec.suspend is true".to_owned())
        }
        (ActionType::Webhook, _) => {
            let webhook = run.spec.webhook.as_ref().ok_or("the action has no webhook")?;
            let secrets = tell::secrets(context, policy, &webhook.secrets()).await.map_err(|error| error.reason)?;
            let name = format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any());
            let called = notify::call(webhook, run, &name, &secrets, &context.edges, Duration::from_secs(10)).await;
            called.map(|()| "the webhook was called".to_owned()).map_err(|error| error.reason)
        }
        (ActionType::RestartComponent | ActionType::Scale, None) => Err("the action names no component".to_owned()),
    }
}

/// Has the coordinators' meta-learning do something.
async fn meta(context: &Context, cluster: &LearningCluster, what: &str) -> Result<String, String> {
    let path = format!("/api/v4/meta-learning/{what}");
    let asked = context.coordinators.post(&ObjectRef::from_obj(cluster), &path).await?;
    asked.error_for_status().map(|_| format!("meta-learning: {what}")).map_err(|error| error.to_string())
}

fn role(component: Component) -> Role {
    match component {
        Component::Gateway => Role::Gateway,
        Component::Coordinator => Role::Coordinator,
        Component::Worker => Role::Worker,
        Component::Redis => Role::Redis,
    }
}

/// Asks the LearningCluster controller, which has the budget.
async fn ask(context: &Context, cluster: &LearningCluster, what: Ask) -> Result<String, String> {
    let (answer, answered) = oneshot::channel();
    let key = ObjectRef::from_obj(cluster);
    context.requests.put(&key, Request { what, answer });
    let ending = |_| "the operator is ending".to_owned();
    context.clusters_changed.send(key).await.map_err(|_| "the operator is ending".to_owned())?;
    match tokio::time::timeout(ANSWER_WITHIN, answered).await {
        Ok(answer) => answer.map_err(ending)?,
        Err(_) => Err("the LearningCluster was not reconciled in time".to_owned()),
    }
}

/// More pods of a role: by the autoscaler's own decision where there is one, else as `kubectl scale` does.
async fn scale(context: &Context, cluster: &LearningCluster, role: Role, replicas: i32) -> Result<String, String> {
    let spec = &cluster.spec;
    let strategy = spec.workers.autoscaling.as_ref().map(|scaling| scaling.strategy);
    let (field, standing) = match (role, strategy) {
        (Role::Worker, Some(ScalingStrategy::Queue)) => {
            return ask(context, cluster, Ask::Workers { at_least: replicas }).await;
        }
        (Role::Worker, Some(ScalingStrategy::Hpa)) => {
            return Err("a HorizontalPodAutoscaler decides the number of workers".to_owned());
        }
        (Role::Worker, _) => ("workers", spec.workers.replicas),
        (Role::Gateway, _) => ("gateway", spec.gateway.replicas),
        (Role::Coordinator, _) => ("coordinator", spec.coordinator.replicas),
        (Role::Redis, _) => return Err("the number of Redis servers can't be changed by an action".to_owned()),
    };
    if standing >= replicas {
        return Ok(format!("there are {standing} already"));
    }
    change(context, cluster, json!({"spec": {field: {"replicas": replicas}}})).await?;
    Ok(format!("spec.{field}.replicas from {standing} to {replicas}"))
}

async fn withdraw_approval(context: &Context, cluster: &LearningCluster, action: &str) -> Result<(), String> {
    let standing = cluster.annotations().get(APPROVE_ANNOTATION).map(String::as_str).unwrap_or_default();
    let left: Vec<&str> = standing.split(',').map(str::trim).filter(|name| *name != action).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left.join(",")) };
    change(context, cluster, json!({"metadata": {"annotations": {APPROVE_ANNOTATION: left}}})).await
}

async fn change(context: &Context, cluster: &LearningCluster, patch: Value) -> Result<(), String> {
    let api: Api<LearningCluster> = Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    context.metrics.wrote("learningclusters", "patch");
    let patched = api.patch(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|error| error.to_string())
}
