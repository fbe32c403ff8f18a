//! Discord's webhooks.

use hebb_api::DiscordReceiver;
use serde_json::{Value, json};

use super::http::{Post, post};
use super::slack::colour;
use super::{Edges, Secrets};
use crate::message::Message;
use crate::retry::SendError;
use crate::template::cut;

/// Discord's bound on the characters of all embeds of a message is 6,000.
const EMBED_MAX: usize = 550;

pub(super) async fn send(
    discord: &DiscordReceiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    post(edges, Post::json(secrets.get(&discord.url_secret_ref)?, &body(message))).await
}

fn body(message: &Message) -> Value {
    let embeds: Vec<Value> = message
        .alerts
        .iter()
        .map(|notice| {
            json!({
                "color": colour(message),
                "description": cut(escaped(&notice.lines().join("\n")), EMBED_MAX),
                "timestamp": notice.since.to_string(),
            })
        })
        .collect();
    // An empty list of what is parsed: whoever is mentioned isn't called.
    json!({
        "content": cut(escaped(&message.headline()), 500),
        "embeds": embeds,
        "allowed_mentions": {"parse": []},
    })
}

/// Text without markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '_' | '~' | '`' | '|' | '\\' | '[' | ']' | '<' | '>' | '#') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_within_bounds_and_without_markup() {
        let mut message = Message::test("default/p", jiff::Timestamp::UNIX_EPOCH);
        message.title = "[click](https://evil) @everyone".to_owned();
        let mut notice = message.alerts[0].clone();
        notice.description = "x".repeat(5_000);
        message.alerts = vec![notice; 10];
        let body = body(&message);
        let embeds = body["embeds"].as_array().unwrap();
        let characters: usize = embeds.iter().map(|embed| embed["description"].as_str().unwrap().len()).sum();
        assert!(characters <= 6_000 && embeds.len() == 10);
        assert!(body["content"].as_str().unwrap().contains("\\[click\\]"));
        assert_eq!(body["allowed_mentions"]["parse"], json!([]));
    }
}
