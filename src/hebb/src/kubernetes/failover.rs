//! `hebb failover`: asks the operator for what the action FailoverRedis of an AlertPolicy asks for.

use std::time::Duration;

use clap::Args;
use hebb_api::names::REQUEST_ANNOTATION;
use hebb_api::{LearningCluster, RedisMode, RequestStatus};
use serde_json::json;

use super::Named;
use super::reach::{Found, left_alone, token};
use crate::cli::Outcome;
use crate::node::runtime;

/// The operator answers a request within this time, or nobody does.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl hebb failover demo
  kubectl hebb failover demo --wait --timeout 2m

The pod of the primary is replaced, which hands its role over first: with redis.durability Replicated nothing that was
acknowledged is lost. Of several shards it is one whose primary isn't ready, else the one that has been primary for longest. It spends the budget of spec.healing, and is refused when that is spent.")]
pub struct Options {
    #[command(flatten)]
    named: Named,
    /// Wait until another server is primary
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "5m")]
    timeout: hebb_api::Duration,
}

/// Why there is no failover.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    #[error("{0} can't fail over: {1}")]
    Mode(String, &'static str),
    #[error("the operator refuses: {0}")]
    Refused(String),
    #[error("the operator answers nothing; does it run? kubectl -n hebb-system get pods")]
    Silent(#[source] super::reach::ReachError),
}

/// Why the Redis of a cluster can't fail over, where it can't.
fn hindrance(cluster: &LearningCluster) -> Option<&'static str> {
    if let Some(why) = left_alone(cluster) {
        return Some(why);
    }
    match cluster.spec.redis.mode {
        RedisMode::Sentinel | RedisMode::Cluster => None,
        RedisMode::Standalone => Some("redis.mode Standalone has one server"),
        RedisMode::External => Some("redis.mode External is somebody else's server"),
    }
}

fn answered(cluster: &LearningCluster, request: &str) -> Option<RequestStatus> {
    cluster.status.as_ref()?.request.clone().filter(|answer| answer.value == request)
}

/// What the operator says to a request, if it grants it.
pub async fn answer(found: &Found, asked: &LearningCluster, request: &str) -> Result<RequestStatus, FailoverError> {
    let answer = match answered(asked, request) {
        Some(answer) => answer,
        None => found
            .wait("the operator answers", ANSWER_WITHIN, |cluster| answered(cluster, request))
            .await
            .map_err(FailoverError::Silent)?,
    };
    if answer.granted { Ok(answer) } else { Err(FailoverError::Refused(answer.message)) }
}

/// The pods that take writes, as far as somebody knows.
fn primaries(cluster: &LearningCluster) -> Vec<String> {
    let redis = cluster.status.as_ref().and_then(|status| status.redis.clone()).unwrap_or_default();
    if redis.primaries.is_empty() { redis.primary.into_iter().collect() } else { redis.primaries }
}

pub fn run(options: Options) -> Outcome {
    let Named { name, reach, output } = options.named;
    runtime()?.block_on(async {
        let (found, cluster) = reach.cluster(&name).await?;
        if let Some(why) = hindrance(&cluster) {
            return Err(FailoverError::Mode(name, why).into());
        }
        let request = format!("failover {}", token());
        let asked = found.annotate(REQUEST_ANNOTATION, &request).await?;
        let answer = answer(&found, &asked, &request).await?;
        let former = primaries(&cluster);
        let mut text = answer.message.clone();
        let mut said = json!({"name": name, "namespace": found.namespace, "from": former, "message": answer.message});
        if options.wait {
            let now = found
                .wait("another server is primary", options.timeout.0, |cluster| {
                    Some(primaries(cluster)).filter(|now| !now.is_empty() && *now != former)
                })
                .await?;
            text = format!("{text}; {} takes writes now", now.join(", "));
            said["to"] = json!(now);
        }
        output.print(&text, &said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_with_others_fails_over_and_the_rest_is_told_why_not() {
        let mut cluster = LearningCluster::default();
        for (mode, wanted) in [
            (RedisMode::Sentinel, None),
            (RedisMode::Standalone, Some("one server")),
            (RedisMode::Cluster, None),
            (RedisMode::External, Some("somebody else")),
        ] {
            cluster.spec.redis.mode = mode;
            let why = hindrance(&cluster);
            assert_eq!(why.is_some(), wanted.is_some(), "{why:?}");
            assert!(wanted.is_none_or(|wanted| why.is_some_and(|why| why.contains(wanted))), "{why:?}");
        }
    }
}
