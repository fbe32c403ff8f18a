//! `hebb silence`: adds a silence to an AlertPolicy, and takes out those that have ended.

use clap::Args;
use hebb_api::{AlertPolicy, MatchType, Matcher, Silence};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Format;
use super::reach::{Reach, call, named};
use crate::cli::Outcome;
use crate::node::runtime;

/// Tries to add it while others change the same policy.
const TRIES: usize = 5;

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl hebb silence quality --for 2h --labels alertname=RedisDown --comment 'moving the disk, ask Kim'
  kubectl hebb silence quality --for 30m --labels severity=Warning,cluster=demo")]
pub struct Options {
    /// Name of the AlertPolicy
    policy: String,
    /// How long, for example 2h
    #[arg(long = "for", value_name = "DURATION")]
    for_: hebb_api::Duration,
    /// Labels that the alerts have, all of them, for example alertname=RedisDown,severity=Critical
    #[arg(long, value_delimiter = ',', value_parser = super::super::alerts::label, required = true)]
    labels: Vec<(String, String)>,
    /// Why, and whom to ask
    #[arg(long)]
    comment: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The silences without those that have ended, and with the new one.
fn with(standing: &[Silence], new: Silence, now: Timestamp) -> Vec<Silence> {
    let lasting = standing.iter().filter(|silence| silence.ends_at.0 > now).cloned();
    lasting.chain([new]).collect()
}

fn silence(labels: &[(String, String)], ends_at: Timestamp, comment: Option<String>) -> Silence {
    let matchers = labels.iter().map(|(name, value)| Matcher {
        name: name.clone(),
        value: value.clone(),
        match_type: MatchType::Equal,
    });
    Silence { matchers: matchers.collect(), starts_at: None, ends_at: Time(ends_at), comment }
}

pub fn run(options: Options) -> Outcome {
    runtime()?.block_on(async {
        let (client, namespace) = options.reach.client(true).await?;
        let now = Timestamp::from_second(Timestamp::now().as_second())?;
        let ends_at = now.checked_add(options.for_.0)?;
        let new = silence(&options.labels, ends_at, options.comment);
        let api: Api<AlertPolicy> = Api::namespaced(client.clone(), &namespace);
        let mut tries = 0;
        loop {
            tries += 1;
            let policy: AlertPolicy = named(&client, &namespace, &options.policy, "AlertPolicy").await?;
            // The version makes the API server refuse what somebody else has changed meanwhile: a list is replaced whole.
            let patch = json!({
                "metadata": {"resourceVersion": policy.resource_version()},
                "spec": {"silences": with(&policy.spec.silences, new.clone(), now)},
            });
            match api.patch(&options.policy, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
                patched => {
                    patched.map_err(call("change the AlertPolicy"))?;
                    break;
                }
            }
        }
        let said = json!({"policy": options.policy, "namespace": namespace, "endsAt": ends_at.to_string()});
        options.output.print(&format!("{}: silent until {ends_at}", options.policy), &said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_added_and_those_that_have_ended_go() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |ends| silence(&[("a".to_owned(), "b".to_owned())], at(ends), None);
        let kept = with(&[of(5), of(20)], of(30), at(10));
        assert_eq!(kept, [of(20), of(30)]);
    }
}
