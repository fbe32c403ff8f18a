//! Which receivers an alert goes to: flat, ordered routes with `continue`, as Alertmanager's routes below its root.

use std::fmt::Write;
use std::time::Duration;

use hebb_api::Route;

use crate::digest::digest;
use crate::matcher::{Compiled, all_match};
use crate::message::Labels;

/// Groups by every label.
const EVERY_LABEL: &str = "...";

/// A route, ready to be used.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRoute {
    /// What groups of the route are known by: the same as long as it selects, groups and sends alike, wherever it stands.
    pub(crate) key: String,
    pub(crate) spec: Route,
    matchers: Vec<Compiled>,
}

impl CompiledRoute {
    pub(crate) fn new(spec: &Route, place: &str, problems: &mut Vec<String>) -> Self {
        let matchers = Compiled::list(&spec.matchers, &format!("{place}.matchers"), problems);
        let mut parts: Vec<String> = matchers.iter().map(Compiled::to_string).collect();
        parts.sort();
        parts.push(spec.receiver.clone());
        parts.extend(spec.group_by.iter().cloned());
        Self { key: digest(parts.iter().map(String::as_str)), spec: spec.clone(), matchers }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        all_match(&self.matchers, labels)
    }

    /// The labels that an alert has in common with its group.
    pub(crate) fn group_labels(&self, labels: &Labels) -> Labels {
        let every = self.spec.group_by.iter().any(|name| name == EVERY_LABEL);
        let in_common = |name: &String| every || self.spec.group_by.contains(name);
        labels.iter().filter(|(name, _)| in_common(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What the group of these labels is known by.
    pub(crate) fn group_key(&self, policy: &str, group_labels: &Labels) -> String {
        let labels = group_labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        digest([policy, self.key.as_str()].into_iter().chain(labels))
    }

    /// The receivers that are told after a group has fired for so long: one more each time `escalateAfter` has passed.
    pub(crate) fn receivers(&self, fired_for: Option<Duration>) -> Vec<&str> {
        let steps = match (self.spec.escalate_after, fired_for) {
            (Some(after), Some(fired_for)) if !after.0.is_zero() => fired_for.as_millis() / after.0.as_millis().max(1),
            _ => 0,
        };
        let levels = usize::try_from(steps).unwrap_or(usize::MAX);
        let more = self.spec.escalate_to.iter().take(levels).map(String::as_str);
        std::iter::once(self.spec.receiver.as_str()).chain(more).collect()
    }

    /// The level of escalation that a receiver stands for.
    pub(crate) fn level(&self, receiver: &str) -> u8 {
        let place = self.spec.escalate_to.iter().position(|name| name == receiver);
        match place {
            Some(place) if receiver != self.spec.receiver => u8::try_from(place + 2).unwrap_or(u8::MAX),
            _ => 1,
        }
    }
}

/// The routes that an alert takes, in their order.
pub(crate) fn taken<'a>(routes: &'a [CompiledRoute], labels: &Labels) -> Vec<&'a CompiledRoute> {
    let mut taken = Vec::new();
    for route in routes {
        if route.matches(labels) {
            taken.push(route);
            if !route.spec.continue_ {
                break;
            }
        }
    }
    taken
}

/// Says of every route whether it takes an alert of these labels, and why not.
pub(crate) fn explain(routes: &[CompiledRoute], labels: &Labels) -> String {
    let mut text = String::new();
    let mut receivers = Vec::new();
    let mut stopped = None;
    for (index, route) in routes.iter().enumerate() {
        let says = match (stopped, route.matchers.iter().find(|matcher| !matcher.matches(labels))) {
            (Some(by), _) => format!("not tried: route {by} took the alert and doesn't continue"),
            (None, Some(matcher)) => {
                let value = labels.get(matcher.name()).map_or("missing".to_owned(), |value| format!("{value:?}"));
                format!("no: {matcher} doesn't match, {} is {value}", matcher.name())
            }
            (None, None) => {
                receivers.push(route.spec.receiver.as_str());
                if !route.spec.continue_ {
                    stopped = Some(index);
                }
                let group = route.group_labels(labels);
                let group: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let onward = if route.spec.continue_ { ", continues" } else { "" };
                format!("yes: all {} matchers match{onward}; group {{{}}}", route.matchers.len(), group.join(", "))
            }
        };
        // Writing into a string can't fail.
        let _ = writeln!(text, "route {index} → {}: {says}", route.spec.receiver);
    }
    let told = if receivers.is_empty() { "nobody: no route takes it".to_owned() } else { receivers.join(", ") };
    let _ = writeln!(text, "told: {told}");
    text
}

#[cfg(test)]
mod tests {
    use hebb_api::{MatchType, Matcher};
    use proptest::prelude::*;

    use super::*;

    fn routes(yaml: &str) -> Vec<CompiledRoute> {
        let specs: Vec<Route> = serde_yaml::from_str(yaml).unwrap();
        let mut problems = Vec::new();
        let compiled = specs.iter().map(|spec| CompiledRoute::new(spec, "", &mut problems)).collect();
        assert_eq!(problems, Vec::<String>::new());
        compiled
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const ROUTES: &str = "
        - {receiver: audit, continue: true, groupBy: []}
        - {receiver: oncall, matchers: [{name: severity, matchType: '=~', value: Critical|Emergency}], groupBy: [alertname, cluster]}
        - {receiver: team, matchers: [{name: team, value: ml}], groupBy: ['...']}
        - {receiver: chat}";

    #[test]
    fn the_first_route_that_matches_takes_it_unless_it_continues() {
        let routes = routes(ROUTES);
        let check = |pairs: &[(&str, &str)], expected: &[&str]| {
            let taken: Vec<&str> =
                taken(&routes, &labels(pairs)).into_iter().map(|route| route.spec.receiver.as_str()).collect();
            assert_eq!(taken, expected, "{pairs:?}");
        };
        check(&[("severity", "Critical"), ("team", "ml")], &["audit", "oncall"]);
        check(&[("severity", "Warning"), ("team", "ml")], &["audit", "team"]);
        check(&[], &["audit", "chat"]);
    }

    #[test]
    fn groups_have_the_labels_that_are_named() {
        let routes = routes(ROUTES);
        let alert = labels(&[("alertname", "lag"), ("cluster", "a"), ("team", "ml")]);
        assert_eq!(routes[0].group_labels(&alert), Labels::new());
        assert_eq!(routes[1].group_labels(&alert), labels(&[("alertname", "lag"), ("cluster", "a")]));
        assert_eq!(routes[2].group_labels(&alert), alert);
        assert_eq!(routes[3].group_labels(&alert), labels(&[("alertname", "lag")]));
    }

    #[test]
    fn an_explanation_names_what_did_not_match() {
        let text = explain(&routes(ROUTES), &labels(&[("severity", "Warning"), ("team", "ml")]));
        for part in [
            "route 0 → audit: yes: all 0 matchers match, continues",
            "route 1 → oncall: no: severity=~\"Critical|Emergency\" doesn't match, severity is \"Warning\"",
            "route 2 → team: yes",
            "route 3 → chat: not tried: route 2 took the alert",
            "told: audit, team",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn each_wait_adds_a_level() {
        let routes = routes("[{receiver: a, escalateAfter: 10m, escalateTo: [b, c]}]");
        let check = |minutes: u64, expected: &[&str]| {
            assert_eq!(routes[0].receivers(Some(Duration::from_secs(minutes * 60))), expected);
        };
        check(0, &["a"]);
        check(10, &["a", "b"]);
        check(20, &["a", "b", "c"]);
        check(900, &["a", "b", "c"]);
        assert_eq!((routes[0].level("a"), routes[0].level("c")), (1, 3));
    }

    proptest! {
        #[test]
        fn order_and_continue_decide(
            specs in proptest::collection::vec((any::<bool>(), proptest::option::of(0u8..3)), 0..12), value in 0u8..3,
        ) {
            let mut problems = Vec::new();
            let compiled: Vec<CompiledRoute> = specs.iter().enumerate().map(|(index, (continue_, wanted))| {
                let matchers = wanted.iter().map(|wanted| Matcher {
                    name: "x".to_owned(), value: wanted.to_string(), match_type: MatchType::Equal,
                }).collect();
                let spec = Route { matchers, receiver: index.to_string(), continue_: *continue_, ..Route::default() };
                CompiledRoute::new(&spec, "", &mut problems)
            }).collect();
            let found: Vec<String> = taken(&compiled, &labels(&[("x", &value.to_string())]))
                .into_iter().map(|route| route.spec.receiver.clone()).collect();
            let matching: Vec<usize> = (0..specs.len()).filter(|i| specs[*i].1.is_none_or(|w| w == value)).collect();
            let end = matching.iter().position(|i| !specs[*i].0).map_or(matching.len(), |last| last + 1);
            let expected: Vec<String> = matching[..end].iter().map(usize::to_string).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
