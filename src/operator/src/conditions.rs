//! Conditions, set in one way: the transition time moves only when the status flips, and what doesn't change isn't written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Bytes of a message; longer ones are cut.
const MESSAGE_MAX: usize = 1_024;

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    pub type_: &'static str,
    pub status: Option<bool>,
    pub reason: &'static str,
    pub message: String,
}

impl Desired {
    /// A condition that is true or false.
    pub fn new(type_: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Some(status), reason, message: message.into() }
    }

    /// A condition that can't be told.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: None, reason, message: message.into() }
    }
}

fn word(status: Option<bool>) -> &'static str {
    match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// The desired conditions with the transition times of the former ones, in the desired order.
pub fn merge(former: &[Condition], desired: Vec<Desired>, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    // A second is as fine as Kubernetes writes it.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    desired
        .into_iter()
        .map(|wanted| {
            let status = word(wanted.status);
            let standing =
                former.iter().find(|condition| condition.type_ == wanted.type_ && condition.status == status);
            let mut message = wanted.message;
            let end = (0..=MESSAGE_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or(0));
            Condition {
                type_: wanted.type_.to_owned(),
                status: status.to_owned(),
                reason: wanted.reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: standing.map_or(Time(now), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Whether a condition stands and is true.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = merge(&[], vec![Desired::new("Ready", false, "Starting", "a")], Some(1), at(1));
        let same = merge(&first, vec![Desired::new("Ready", false, "Waiting", "b")], Some(2), at(2));
        assert_eq!(same[0].last_transition_time, Time(at(1)));
        assert_eq!(same[0].observed_generation, Some(2));
        let flipped = merge(&same, vec![Desired::new("Ready", true, "Ready", "")], Some(2), at(3));
        assert_eq!(flipped[0].last_transition_time, Time(at(3)));
        assert!(is_true(&flipped, "Ready"));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long =
            merge(&[], vec![Desired::new("Ready", true, "Ready", "ü".repeat(1_000))], None, Timestamp::UNIX_EPOCH);
        assert_eq!(long[0].message.len(), 1_024);
    }
}
