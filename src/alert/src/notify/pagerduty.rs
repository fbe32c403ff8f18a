//! PagerDuty's Events API v2. An incident is a group: it begins with the first alert and ends with the last.

use hebb_api::{PagerDutyReceiver, Severity};
use serde_json::{Value, json};

use super::http::{Post, post};
use super::{Edges, Secrets};
use crate::message::{Message, Standing};
use crate::retry::SendError;

const BASE: &str = "https://events.pagerduty.com";

pub(super) async fn send(
    pagerduty: &PagerDutyReceiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let key = secrets.get(&pagerduty.routing_key_secret_ref)?;
    let base = pagerduty.url.as_deref().unwrap_or(BASE).trim_end_matches('/');
    let url = format!("{base}/v2/enqueue");
    post(edges, Post::json(&url, &body(key, message))).await
}

fn body(key: &str, message: &Message) -> Value {
    let severity = match message.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "error",
        Severity::Emergency => "critical",
    };
    let links: Vec<Value> = message
        .alerts
        .iter()
        .filter(|notice| !notice.runbook_url.is_empty())
        .map(|notice| json!({"href": notice.runbook_url, "text": format!("runbook of {}", notice.rule)}))
        .collect();
    let source = message.alerts.first().map_or("hebb", |notice| notice.target.as_str());
    json!({
        "routing_key": key,
        "event_action": match message.status { Standing::Firing => "trigger", Standing::Resolved => "resolve" },
        "dedup_key": message.group,
        "client": "Hebb",
        "links": links,
        "payload": {
            "summary": message.headline(),
            "source": source,
            "severity": severity,
            "timestamp": message.at.to_string(),
            "component": message.policy,
            "custom_details": {
                "text": message.text(), "idempotencyKey": message.idempotency_key, "labels": message.labels,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_known_by_its_group_until_it_ends() {
        let mut message = Message::test("default/p", jiff::Timestamp::UNIX_EPOCH);
        message.group = "g".to_owned();
        let begun = body("k", &message);
        message.status = Standing::Resolved;
        message.idempotency_key = "another".to_owned();
        let ended = body("k", &message);
        assert_eq!((&begun["event_action"], &ended["event_action"]), (&json!("trigger"), &json!("resolve")));
        assert_eq!((&begun["dedup_key"], &ended["dedup_key"]), (&json!("g"), &json!("g")));
    }
}
