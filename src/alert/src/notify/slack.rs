//! Slack's incoming webhooks, which Mattermost and others take as well.

use hebb_api::{Severity, SlackReceiver};
use serde_json::{Value, json};

use super::http::{Post, post};
use super::{Edges, Secrets};
use crate::message::{Message, Standing};
use crate::retry::SendError;

pub(super) async fn send(
    slack: &SlackReceiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let url = secrets.get(&slack.url_secret_ref)?;
    post(edges, Post { allow_private: slack.allow_private, ..Post::json(url, &body(message)) }).await
}

/// The colour of a message, for Slack and Discord.
pub(super) fn colour(message: &Message) -> u32 {
    match (message.status, message.severity) {
        (Standing::Resolved, _) => 0x002e_b67d,
        (Standing::Firing, Severity::Info) => 0x0036_c5f0,
        (Standing::Firing, Severity::Warning) => 0x00ec_b22e,
        (Standing::Firing, Severity::Critical) => 0x00e0_1e5a,
        (Standing::Firing, Severity::Emergency) => 0x007a_0000,
    }
}

fn body(message: &Message) -> Value {
    let attachments: Vec<Value> = message
        .alerts
        .iter()
        .map(|notice| {
            json!({
                "color": format!("#{:06x}", colour(message)),
                "text": escaped(&notice.lines().join("\n")),
                "fallback": escaped(&notice.summary),
            })
        })
        .collect();
    json!({"text": escaped(&message.headline()), "attachments": attachments})
}

/// The three characters that Slack takes for control: with them gone, nobody can be mentioned and nothing linked.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_mentioned_by_a_label() {
        let mut message = Message::test("default/p", jiff::Timestamp::UNIX_EPOCH);
        message.title = "<!channel> & <https://evil|click>".to_owned();
        message.alerts[0].summary = "<@U1>".to_owned();
        let body = body(&message).to_string();
        assert!(!body.contains('<') && !body.contains('>'), "{body}");
        assert!(body.contains("&lt;!channel&gt; &amp;"), "{body}");
    }
}
