//! Who is told. Credentials are in Secrets, never here.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::learning_cluster::SecretKeyRef;

/// Someone who is told.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.slack), has(self.discord), has(self.email), has(self.webhook), has(self.pagerduty), has(self.log), has(self.file), has(self.event)].filter(x, x).size() == 1",
    "spec.receivers: a receiver has exactly one of slack, discord, email, webhook, pagerduty, log, file and event"
))]
pub struct Receiver {
    /// Name of the receiver.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Whether it is told as well when alerts end. Default: true.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// How long one delivery may take, 1s to 60s. Default: 10s.
    #[serde(default = "ten_seconds")]
    pub timeout: Duration,
    /// A Slack channel, or what takes Slack's messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackReceiver>,
    /// A Discord channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discord: Option<DiscordReceiver>,
    /// Mailboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailReceiver>,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookReceiver>,
    /// A PagerDuty service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagerduty: Option<PagerDutyReceiver>,
    /// The operator's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReceiver>,
    /// A file of JSON lines, where the administrator allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileReceiver>,
    /// Kubernetes Events on the LearningCluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventReceiver>,
}

fn yes() -> bool {
    true
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            name: String::new(),
            send_resolved: true,
            timeout: ten_seconds(),
            slack: None,
            discord: None,
            email: None,
            webhook: None,
            pagerduty: None,
            log: None,
            file: None,
            event: None,
        }
    }
}

/// A Slack channel.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlackReceiver {
    /// The Secret, in the same namespace, that holds the incoming webhook's URL.
    pub url_secret_ref: SecretKeyRef,
    /// Whether the URL may lead to a private address, such as a chat server of one's own; the operator must allow it too.
    /// Default: false.
    #[serde(default)]
    pub allow_private: bool,
}

/// A Discord channel.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscordReceiver {
    /// The Secret, in the same namespace, that holds the webhook's URL.
    pub url_secret_ref: SecretKeyRef,
}

/// Mailboxes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.usernameSecretRef) == has(self.passwordSecretRef)",
    "spec.receivers.email: usernameSecretRef and passwordSecretRef need each other"
))]
#[x_kube(validation = (
    "!has(self.passwordSecretRef) || self.security != 'None'",
    "spec.receivers.email: a password isn't sent without TLS"
))]
pub struct EmailReceiver {
    /// Host name of the SMTP server.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Its port. Default: 587 for StartTls, 465 for Tls, 25 for None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// How the connection is protected. Default: StartTls.
    #[serde(default)]
    pub security: EmailSecurity,
    /// The Secret, in the same namespace, that holds the user's name. Default: no login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<SecretKeyRef>,
    /// The Secret, in the same namespace, that holds the user's password. Default: no login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Address of the sender.
    #[schemars(length(min = 3, max = 320))]
    pub from: String,
    /// Addresses of the recipients. At most 16.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 320)))]
    pub to: Vec<String>,
    /// Whether the server may have a private address; the operator must allow it too. Default: false.
    #[serde(default)]
    pub allow_private: bool,
}

/// How a connection to an SMTP server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EmailSecurity {
    /// Begins in the clear and must become TLS before anything is said.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// In the clear, without a password.
    None,
}

/// An HTTP endpoint. It gets a POST with the headers `X-Idempotency-Key` (the same for every attempt of a message) and, with
/// `hmacSecretRef`, `X-Hebb-Signature: sha256=` and the HMAC of the body in hexadecimal digits.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.url) != has(self.urlSecretRef)", "webhook: exactly one of url and urlSecretRef is needed"))]
pub struct WebhookReceiver {
    /// The URL, if it is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub url: Option<String>,
    /// The Secret, in the same namespace, that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,
    /// The body, a template (Jinja) that knows `message`: `{{ message.title }}`, `{{ message|tojson }}`; in an action it knows
    /// `run.action`, `run.target`, `run.rule` and `run.attempt` instead. Default: all of it as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<String>,
    /// The Secret, in the same namespace, that holds the key which bodies are signed with. Default: no signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac_secret_ref: Option<SecretKeyRef>,
    /// The Secret, in the same namespace, that holds the value of the header `Authorization`. Default: no such header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_secret_ref: Option<SecretKeyRef>,
    /// Whether the URL may lead to a private address, such as a Service's; the operator must allow it too. Default: false.
    #[serde(default)]
    pub allow_private: bool,
}

/// A PagerDuty service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PagerDutyReceiver {
    /// The Secret, in the same namespace, that holds the integration key (Events API v2).
    pub routing_key_secret_ref: SecretKeyRef,
    /// Where the Events API is. Default: https://events.pagerduty.com
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub url: Option<String>,
}

/// The operator's log.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReceiver {}

/// A file of JSON lines.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReceiver {
    /// Name of the file, without a folder: the administrator says which folder such files are in.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][-_.A-Za-z0-9]*$"))]
    pub name: String,
}

/// Kubernetes Events on the LearningCluster.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventReceiver {}

impl Receiver {
    /// The Secrets that it needs.
    pub fn secrets(&self) -> Vec<&SecretKeyRef> {
        let mut secrets = Vec::new();
        secrets.extend(self.slack.as_ref().map(|slack| &slack.url_secret_ref));
        secrets.extend(self.discord.as_ref().map(|discord| &discord.url_secret_ref));
        secrets.extend(self.pagerduty.as_ref().map(|pagerduty| &pagerduty.routing_key_secret_ref));
        if let Some(email) = &self.email {
            secrets.extend(&email.username_secret_ref);
            secrets.extend(&email.password_secret_ref);
        }
        if let Some(webhook) = &self.webhook {
            secrets.extend(webhook.secrets());
        }
        secrets
    }
}

impl WebhookReceiver {
    /// The Secrets that it needs.
    pub fn secrets(&self) -> Vec<&SecretKeyRef> {
        [&self.url_secret_ref, &self.hmac_secret_ref, &self.authorization_secret_ref].into_iter().flatten().collect()
    }
}
