//! Why an alert is told to nobody at present: somebody silenced it, another alert says more, or its target is being changed on
//! purpose.

use std::collections::{BTreeMap, BTreeSet};

use hebb_api::{InhibitRule, Phase, Silence};
use jiff::Timestamp;

use crate::matcher::{Compiled, all_match};
use crate::message::Labels;

/// Why nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mute {
    /// A silence.
    Silence,
    /// Another alert.
    Inhibition,
    /// The target is being upgraded.
    Upgrade,
    /// The target is suspended.
    Suspend,
}

impl Mute {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Mute::Silence => "Silence",
            Mute::Inhibition => "Inhibition",
            Mute::Upgrade => "Upgrade",
            Mute::Suspend => "Suspend",
        }
    }
}

/// What mutes, ready to be used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mutes {
    silences: Vec<(Silence, Vec<Compiled>)>,
    inhibitions: Vec<Inhibition>,
    during: BTreeSet<Phase>,
}

#[derive(Clone, Debug)]
struct Inhibition {
    source: Vec<Compiled>,
    target: Vec<Compiled>,
    equal: Vec<String>,
}

impl Mutes {
    pub(crate) fn new(
        silences: &[Silence],
        inhibitions: &[InhibitRule],
        during: &[Phase],
        problems: &mut Vec<String>,
    ) -> Self {
        let mut mutes = Self { during: during.iter().copied().collect(), ..Self::default() };
        for (index, silence) in silences.iter().enumerate() {
            let place = format!("spec.silences[{index}].matchers");
            let matchers = Compiled::list(&silence.matchers, &place, problems);
            if matchers.len() == silence.matchers.len() && matchers.iter().all(|matcher| matcher.matches_value("")) {
                problems.push(format!("{place}: one must need a label, or everything would be silenced"));
            }
            mutes.silences.push((silence.clone(), matchers));
        }
        for (index, rule) in inhibitions.iter().enumerate() {
            let place = format!("spec.inhibitRules[{index}]");
            mutes.inhibitions.push(Inhibition {
                source: Compiled::list(&rule.source_matchers, &format!("{place}.sourceMatchers"), problems),
                target: Compiled::list(&rule.target_matchers, &format!("{place}.targetMatchers"), problems),
                equal: rule.equal.clone(),
            });
        }
        mutes
    }

    /// Why an alert isn't told; `firing` are the labels of every alert that fires.
    pub(crate) fn of(
        &self,
        labels: &Labels,
        phases: &BTreeSet<Phase>,
        firing: &BTreeMap<&str, &Labels>,
        now: Timestamp,
    ) -> Option<Mute> {
        if let Some(phase) = phases.intersection(&self.during).next() {
            return Some(match phase {
                Phase::Upgrade => Mute::Upgrade,
                Phase::Suspend => Mute::Suspend,
            });
        }
        let silenced = self.silences.iter().any(|(silence, matchers)| {
            silence.starts_at.as_ref().is_none_or(|starts| starts.0 <= now)
                && now < silence.ends_at.0
                && all_match(matchers, labels)
        });
        if silenced {
            return Some(Mute::Silence);
        }
        self.inhibitions.iter().any(|rule| rule.inhibits(labels, firing)).then_some(Mute::Inhibition)
    }
}

impl Inhibition {
    /// An alert that is on both sides isn't inhibited by another that is too: they would mute each other.
    fn inhibits(&self, labels: &Labels, firing: &BTreeMap<&str, &Labels>) -> bool {
        if !all_match(&self.target, labels) {
            return false;
        }
        let on_both_sides = all_match(&self.source, labels);
        firing.values().any(|source| {
            all_match(&self.source, source)
                && self.equal.iter().all(|name| {
                    source.get(name).map_or("", String::as_str) == labels.get(name).map_or("", String::as_str)
                })
                && !(on_both_sides && all_match(&self.target, source))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, cluster: &str) -> Labels {
        [("alertname".to_owned(), name.to_owned()), ("cluster".to_owned(), cluster.to_owned())].into()
    }

    fn mutes(silences: &str, inhibitions: &str) -> Mutes {
        let silences: Vec<Silence> = serde_yaml::from_str(silences).unwrap();
        let inhibitions: Vec<InhibitRule> = serde_yaml::from_str(inhibitions).unwrap();
        let mut problems = Vec::new();
        let mutes = Mutes::new(&silences, &inhibitions, &[Phase::Upgrade], &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        mutes
    }

    fn why(mutes: &Mutes, alert: &Labels, phases: &[Phase], firing: &[&Labels], second: i64) -> Option<Mute> {
        let names: Vec<String> = (0..firing.len()).map(|index| index.to_string()).collect();
        let firing = names.iter().map(String::as_str).zip(firing.iter().copied()).collect();
        let now = Timestamp::from_second(second).unwrap();
        mutes.of(alert, &phases.iter().copied().collect(), &firing, now)
    }

    #[test]
    fn a_silence_lasts_from_its_start_to_its_end() {
        let mutes = mutes(
            "[{matchers: [{name: cluster, value: a}], startsAt: '1970-01-01T00:00:10Z', endsAt: '1970-01-01T00:00:20Z'}]",
            "[]",
        );
        for (second, expected) in [(9, None), (10, Some(Mute::Silence)), (19, Some(Mute::Silence)), (20, None)] {
            assert_eq!(why(&mutes, &labels("x", "a"), &[], &[], second), expected, "{second}");
        }
        assert_eq!(why(&mutes, &labels("x", "b"), &[], &[], 15), None);
    }

    #[test]
    fn a_silence_of_everything_is_refused() {
        let silences: Vec<Silence> = serde_yaml::from_str(
            "[{matchers: [{name: cluster, matchType: '=~', value: '.*'}], endsAt: '2030-01-01T00:00:00Z'}]",
        )
        .unwrap();
        let mut problems = Vec::new();
        Mutes::new(&silences, &[], &[], &mut problems);
        assert!(problems[0].contains("spec.silences[0].matchers: one must need a label"), "{problems:?}");
    }

    #[test]
    fn an_alert_inhibits_others_of_the_same_cluster() {
        let rule = "[{sourceMatchers: [{name: alertname, value: down}], targetMatchers: [{name: alertname, matchType: '!=', value: other}], equal: [cluster]}]";
        let mutes = mutes("[]", rule);
        let (down, lag) = (labels("down", "a"), labels("lag", "a"));
        assert_eq!(why(&mutes, &lag, &[], &[&down, &lag], 0), Some(Mute::Inhibition));
        assert_eq!(why(&mutes, &lag, &[], &[&lag], 0), None);
        assert_eq!(why(&mutes, &labels("lag", "b"), &[], &[&down], 0), None);
        assert_eq!(why(&mutes, &labels("other", "a"), &[], &[&down], 0), None);
        assert_eq!(why(&mutes, &down, &[], &[&down], 0), None, "it is on both sides");
    }

    #[test]
    fn a_target_that_is_being_upgraded_is_muted_where_the_policy_says_so() {
        let mutes = mutes("[]", "[]");
        assert_eq!(why(&mutes, &labels("x", "a"), &[Phase::Upgrade], &[], 0), Some(Mute::Upgrade));
        assert_eq!(why(&mutes, &labels("x", "a"), &[Phase::Suspend], &[], 0), None);
    }
}
