//! HTTP endpoints of one's own, with a signature to know the sender by and a key to know a repetition by.

use hebb_api::WebhookReceiver;
use ring::hmac;
use serde_json::json;

use super::http::{Post, post};
use super::{Edges, Secrets};
use crate::action::Run;
use crate::message::Message;
use crate::retry::{FailureKind, SendError};
use crate::template::render_body;
use crate::validate::{of_message, of_run};

/// Bytes of a body that a template makes.
const BODY_MAX: usize = 64 << 10;

pub(super) async fn send(
    webhook: &WebhookReceiver,
    message: &Message,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let body = match &webhook.body {
        Some(template) => rendered(template, &of_message(message))?,
        None => json!(message).to_string(),
    };
    deliver(webhook, &message.idempotency_key, body, secrets, edges).await
}

pub(super) async fn call(
    webhook: &WebhookReceiver,
    run: &Run,
    policy: &str,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let body = match &webhook.body {
        Some(template) => rendered(template, &of_run(&run.spec.name, &run.target, &run.rule, run.attempt))?,
        None => json!({
            "id": run.id, "policy": policy, "action": run.spec.name, "target": run.target, "rule": run.rule,
            "attempt": run.attempt,
        })
        .to_string(),
    };
    deliver(webhook, &run.id, body, secrets, edges).await
}

fn rendered(template: &str, known: &minijinja::Value) -> Result<String, SendError> {
    let failed = |why| SendError::permanent(FailureKind::Content, format!("the body can't be rendered: {why}"));
    let body = render_body(template, known).map_err(failed)?;
    if BODY_MAX < body.len() { Err(failed(format!("it has {} bytes", body.len()))) } else { Ok(body) }
}

async fn deliver(
    webhook: &WebhookReceiver,
    key: &str,
    body: String,
    secrets: &Secrets,
    edges: &Edges,
) -> Result<(), SendError> {
    let url = match (&webhook.url, &webhook.url_secret_ref) {
        (Some(url), _) => url.as_str(),
        (None, Some(reference)) => secrets.get(reference)?,
        (None, None) => return Err(SendError::permanent(FailureKind::Content, "the webhook has no URL")),
    };
    let mut headers = vec![("x-idempotency-key", key.to_owned())];
    if let Some(reference) = &webhook.hmac_secret_ref {
        headers.push(("x-hebb-signature", format!("sha256={}", signature(secrets.get(reference)?, &body))));
    }
    if let Some(reference) = &webhook.authorization_secret_ref {
        headers.push(("authorization", secrets.get(reference)?.to_owned()));
    }
    let content_type = match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
        Ok(_) => "application/json",
        Err(_) => "text/plain; charset=utf-8",
    };
    post(edges, Post { url, headers, content_type, body, allow_private: webhook.allow_private, needs_tls: false }).await
}

/// HMAC-SHA256 of the body, in hexadecimal digits.
fn signature(key: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
