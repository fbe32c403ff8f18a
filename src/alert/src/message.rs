//! What people are told: one message for the alerts of a group, as it is kept in the outbox and handed to every kind of
//! receiver.

use std::collections::{BTreeMap, BTreeSet};

use hebb_api::Severity;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::template::cut;

/// Labels of an alert.
pub type Labels = BTreeMap<String, String>;

/// The most alerts that a message describes; more are counted.
pub const NOTICES_MAX: usize = 10;
/// Bytes of a title.
const TITLE_MAX: usize = 200;
/// Bytes of a summary and of a remark on actions.
pub(crate) const SUMMARY_MAX: usize = 256;
/// Bytes of a description.
pub(crate) const DESCRIPTION_MAX: usize = 600;
/// How many names a title spells out.
const NAMES_MAX: usize = 3;

/// Whether something is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It is.
    Firing,
    /// It has ended.
    Resolved,
}

impl Standing {
    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Firing => "FIRING",
            Standing::Resolved => "RESOLVED",
        }
    }
}

/// One message for one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The same for every attempt to deliver it, and for no other message.
    pub idempotency_key: String,
    /// What the group is known by for as long as it lasts.
    pub group: String,
    /// Namespace and name of the policy.
    pub policy: String,
    /// Firing while any alert of the group fires.
    pub status: Standing,
    /// The worst of the alerts.
    pub severity: Severity,
    /// What is the matter, in a line.
    pub title: String,
    /// The level of escalation, 1 to 4.
    pub level: u8,
    /// The labels that the group has in common.
    pub labels: Labels,
    /// When it was decided to tell.
    pub at: Timestamp,
    /// The alerts, firing ones first.
    pub alerts: Vec<Notice>,
    /// Number of alerts that are not described.
    #[serde(default)]
    pub omitted: usize,
}

/// An alert in a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// What the alert is known by.
    pub fingerprint: String,
    /// Name of the rule.
    pub rule: String,
    /// Name of the LearningCluster.
    pub target: String,
    /// Whether it fires.
    pub status: Standing,
    /// How bad it is.
    pub severity: Severity,
    /// Since when it has fired.
    pub since: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The rule's value, last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Its labels.
    pub labels: Labels,
    /// What is the matter, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What it means.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Address of the page that says what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runbook_url: String,
    /// What has been done about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remediation: String,
}

/// A title for alerts of these rules on these targets: it differs as soon as another alert is meant.
pub(crate) fn title<'a>(alerts: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> String {
    let rules: BTreeSet<&str> = alerts.clone().map(|(rule, _)| rule).collect();
    let targets: BTreeSet<&str> = alerts.map(|(_, target)| target).collect();
    cut(format!("{} on {}", listed(&rules), listed(&targets)), TITLE_MAX)
}

fn listed(names: &BTreeSet<&str>) -> String {
    let spelt: Vec<&str> = names.iter().take(NAMES_MAX).copied().collect();
    match names.len().saturating_sub(NAMES_MAX) {
        0 => spelt.join(", "),
        more => format!("{} and {more} more", spelt.join(", ")),
    }
}

impl Message {
    /// A message that says it is a test, to try a receiver with.
    pub fn test(policy: &str, now: Timestamp) -> Self {
        let labels: Labels = [("alertname", "test"), ("severity", "Info")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let key = crate::digest::digest(["test", policy, &now.to_string()]);
        Self {
            idempotency_key: key.clone(),
            group: key.clone(),
            policy: policy.to_owned(),
            status: Standing::Firing,
            severity: Severity::Info,
            title: "a test of this receiver".to_owned(),
            level: 1,
            labels: labels.clone(),
            at: now,
            alerts: vec![Notice {
                fingerprint: key,
                rule: "test".to_owned(),
                target: "none".to_owned(),
                status: Standing::Firing,
                severity: Severity::Info,
                since: now,
                ended: None,
                value: None,
                labels,
                summary: "Somebody asked whether messages arrive. Nothing is the matter.".to_owned(),
                description: String::new(),
                runbook_url: String::new(),
                remediation: String::new(),
            }],
            omitted: 0,
        }
    }

    /// The first line: standing, severity and title.
    pub fn headline(&self) -> String {
        let level = if self.level > 1 { format!(" (level {})", self.level) } else { String::new() };
        format!("[{}] {}: {}{level}", self.status.as_str(), self.severity.as_str(), self.title)
    }

    /// Everything, in lines of plain text.
    pub fn text(&self) -> String {
        let mut lines = vec![self.headline(), String::new()];
        for notice in &self.alerts {
            lines.extend(notice.lines());
            lines.push(String::new());
        }
        if self.omitted > 0 {
            lines.push(format!("and {} more", self.omitted));
        }
        lines.push(format!("policy {}, message {}", self.policy, self.idempotency_key));
        lines.join("\n")
    }
}

impl Notice {
    /// What is known of the alert, in lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} {} on {}", self.status.as_str(), self.rule, self.target)];
        let mut add = |text: &str| {
            if !text.is_empty() {
                lines.push(text.to_owned());
            }
        };
        add(&self.summary);
        add(&self.description);
        if let Some(value) = self.value {
            add(&format!("value: {value}"));
        }
        add(&format!("since: {}", self.since));
        if let Some(ended) = self.ended {
            add(&format!("ended: {ended}"));
        }
        add(&self.remediation);
        if !self.runbook_url.is_empty() {
            add(&format!("runbook: {}", self.runbook_url));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_names_a_few_and_counts_the_rest() {
        let one = [("lag", "a")];
        assert_eq!(title(one.into_iter()), "lag on a");
        let many = ["a", "b", "c", "d", "e"].map(|target| ("lag", target));
        assert_eq!(title(many.into_iter()), "lag on a, b, c and 2 more");
    }

    #[test]
    fn the_text_says_everything_in_lines() {
        let mut message = Message::test("default/p", Timestamp::UNIX_EPOCH);
        message.alerts[0].value = Some(0.5);
        message.alerts[0].ended = Some(Timestamp::UNIX_EPOCH);
        message.omitted = 2;
        let text = message.text();
        for part in ["[FIRING] Info: a test", "value: 0.5", "ended: 1970-01-01T00:00:00Z", "and 2 more", "default/p"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
