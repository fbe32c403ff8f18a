//! The same routing as a configuration of Alertmanager, so that `amtool config routes test` can say whether both agree.

use hebb_api::{AlertPolicySpec, Matcher};
use serde_json::{Value, json};

/// The routes, receivers, inhibitions and time intervals of a policy as Alertmanager's configuration: JSON, which is YAML. Its
/// receivers send nothing; alerts that no route takes go to the receiver `nobody`.
pub fn config(spec: &AlertPolicySpec) -> String {
    let routes: Vec<Value> = spec
        .routes
        .iter()
        .map(|route| {
            json!({
                "receiver": route.receiver,
                "matchers": matchers(&route.matchers),
                "group_by": route.group_by,
                "group_wait": route.group_wait,
                "group_interval": route.group_interval,
                "repeat_interval": route.repeat_interval,
                "continue": route.continue_,
                "mute_time_intervals": route.mute_time_intervals,
                "active_time_intervals": route.active_time_intervals,
            })
        })
        .collect();
    let receivers: Vec<Value> = std::iter::once("nobody")
        .chain(spec.receivers.iter().map(|receiver| receiver.name.as_str()))
        .map(|name| json!({"name": name}))
        .collect();
    let inhibitions: Vec<Value> = spec
        .inhibit_rules
        .iter()
        .map(|rule| {
            json!({
                "source_matchers": matchers(&rule.source_matchers),
                "target_matchers": matchers(&rule.target_matchers),
                "equal": rule.equal,
            })
        })
        .collect();
    let intervals: Vec<Value> = spec
        .time_intervals
        .iter()
        .map(|interval| {
            let days: Vec<String> = interval.weekdays.iter().map(|day| format!("{day:?}").to_lowercase()).collect();
            let times: Vec<Value> = interval
                .times
                .iter()
                .map(|range| json!({"start_time": range.start.to_string(), "end_time": range.end.to_string()}))
                .collect();
            let location = interval.location.as_deref().unwrap_or("UTC");
            json!({
                "name": interval.name,
                "time_intervals": [{"times": times, "weekdays": days, "location": location}],
            })
        })
        .collect();
    let config = json!({
        "route": {"receiver": "nobody", "routes": routes},
        "receivers": receivers,
        "inhibit_rules": inhibitions,
        "time_intervals": intervals,
    });
    format!("{config:#}\n")
}

/// Alertmanager reads its own quoting of a matcher's value, which is that of Go, as Rust's is for what labels hold.
fn matchers(matchers: &[Matcher]) -> Vec<String> {
    matchers
        .iter()
        .map(|matcher| format!("{}{}{:?}", matcher.name, matcher.match_type.as_str(), matcher.value))
        .collect()
}
