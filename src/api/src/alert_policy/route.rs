//! Which alerts go where, and which go nowhere for now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::TimeOfDay;
use crate::duration::Duration;

/// A condition on a label. A label that an alert hasn't is taken for an empty one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    /// Name of the label: alertname, cluster, namespace, policy, severity, priority or one of the rule's own.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the label is compared with; a regular expression, anchored at both ends, for =~ and !~.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub value: String,
    /// How it compares: =, !=, =~ or !~. Default: =.
    #[serde(default)]
    pub match_type: MatchType,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// Equal.
    #[default]
    #[serde(rename = "=")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Matches the regular expression.
    #[serde(rename = "=~")]
    Matches,
    /// Doesn't match the regular expression.
    #[serde(rename = "!~")]
    MatchesNot,
}

impl MatchType {
    /// The sign in a spec.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchType::Equal => "=",
            MatchType::NotEqual => "!=",
            MatchType::Matches => "=~",
            MatchType::MatchesNot => "!~",
        }
    }
}

/// Which alerts go to a receiver.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.escalateAfter) == (has(self.escalateTo) && self.escalateTo.size() > 0)",
    "spec.routes: escalateAfter and escalateTo need each other"
))]
pub struct Route {
    /// What an alert must match, all of them; every alert matches where there is none. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub matchers: Vec<Matcher>,
    /// Name of the receiver.
    #[schemars(length(min = 1, max = 63))]
    pub receiver: String,
    /// Labels whose values make a group: alerts of a group are told together. `...` stands for every label, an empty list
    /// makes one group of all. At most 16. Default: [alertname].
    #[serde(default = "by_name")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub group_by: Vec<String>,
    /// How long a new group waits for more alerts before it is told, at most 24h. Default: 30s.
    #[serde(default = "thirty_seconds")]
    pub group_wait: Duration,
    /// How long until news of a group are told, 1s to 24h. Default: 5m.
    #[serde(default = "five_minutes")]
    pub group_interval: Duration,
    /// How long until a group without news is told again, 1m to 168h. Default: 4h.
    #[serde(default = "four_hours")]
    pub repeat_interval: Duration,
    /// Whether the routes after this one are tried for an alert that matched. Default: false.
    #[serde(default, rename = "continue")]
    pub continue_: bool,
    /// Names of time intervals in which it tells nothing. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub mute_time_intervals: Vec<String>,
    /// Names of time intervals; it tells nothing outside of them. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    pub active_time_intervals: Vec<String>,
    /// How long a group may fire on one level before the next of `escalateTo` is told as well, 1m to 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate_after: Option<Duration>,
    /// Names of the receivers of levels 2, 3 and 4; `receiver` is level 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(min = 1, max = 63)))]
    pub escalate_to: Vec<String>,
}

fn by_name() -> Vec<String> {
    vec!["alertname".to_owned()]
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn four_hours() -> Duration {
    Duration::from_secs(4 * 3_600)
}

impl Default for Route {
    fn default() -> Self {
        Self {
            matchers: Vec::new(),
            receiver: String::new(),
            group_by: by_name(),
            group_wait: thirty_seconds(),
            group_interval: five_minutes(),
            repeat_interval: four_hours(),
            continue_: false,
            mute_time_intervals: Vec::new(),
            active_time_intervals: Vec::new(),
            escalate_after: None,
            escalate_to: Vec::new(),
        }
    }
}

/// An alert that makes others not worth telling.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InhibitRule {
    /// What the alert matches that inhibits. At most 16.
    #[schemars(length(min = 1, max = 16))]
    pub source_matchers: Vec<Matcher>,
    /// What the alerts match that are inhibited while it fires. At most 16.
    #[schemars(length(min = 1, max = 16))]
    pub target_matchers: Vec<Matcher>,
    /// Labels that both must have in common. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub equal: Vec<String>,
}

/// Hours of a week.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeInterval {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Time zone, by its IANA name, such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub location: Option<String>,
    /// Times of day, any of them; the whole day where there is none. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub times: Vec<TimeRange>,
    /// Days of the week, any of them; every day where there is none. At most 7.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub weekdays: Vec<Weekday>,
}

/// A part of a day.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeRange {
    /// Its first minute, 00:00 to 23:59.
    pub start: TimeOfDay,
    /// The minute after its last, up to 24:00. A range over midnight is two ranges.
    pub end: TimeOfDay,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a name says it all")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// Alerts that are told to nobody for a while. They are evaluated, shown in the status and acted on all the same.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.startsAt) || self.startsAt < self.endsAt",
    "spec.silences: a silence begins before it ends"
))]
pub struct Silence {
    /// What the alerts match, all of them. At most 16.
    #[schemars(length(min = 1, max = 16))]
    pub matchers: Vec<Matcher>,
    /// When it begins. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Time>,
    /// When it ends.
    pub ends_at: Time,
    /// Why, and who to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub comment: Option<String>,
}
