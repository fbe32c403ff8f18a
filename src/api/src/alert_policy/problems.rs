//! What is wrong with a policy beyond its schema. The rules of the definition stand here again for files that no API server
//! has checked; templates, regular expressions and time zones are checked by `hebb-alert`.

use std::collections::BTreeSet;

use super::{
    ActionSpec, ActionType, AlertPolicySpec, AlertRule, Component, INDICATORS, Receiver, Route, TimeInterval,
    WebhookReceiver, indicator_named,
};
use crate::duration::Duration;

/// The most values of an indicator that are kept; a window holds no more intervals than this.
pub const SAMPLES_MAX: u64 = 2_880;
/// The labels that every alert has.
pub const RESERVED_LABELS: [&str; 6] = ["alertname", "cluster", "namespace", "policy", "severity", "priority"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// Problems under the place that they are at.
struct Problems {
    found: Vec<String>,
}

impl Problems {
    fn check(&mut self, good: bool, place: &str, problem: impl FnOnce() -> String) {
        if !good {
            self.found.push(format!("{place}: {}", problem()));
        }
    }

    fn within(&mut self, duration: Duration, least: u64, most: u64, place: &str) {
        let good = (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&duration);
        self.check(good, place, || {
            format!("must be between {} and {}", Duration::from_secs(least), Duration::from_secs(most))
        });
    }

    fn at_most(&mut self, count: usize, most: usize, place: &str) {
        self.check(count <= most, place, || format!("at most {most}"));
    }

    fn known(&mut self, names: &BTreeSet<&str>, name: &str, what: &str, place: &str) {
        self.check(names.contains(name), place, || format!("there is no {what} {name:?}"));
    }

    /// The names of a list's members, which must differ.
    fn names<'a>(&mut self, names: impl Iterator<Item = &'a str>, place: &str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            let place = format!("{place}[{index}].name");
            self.check(!name.is_empty() && name.len() <= 63, &place, || "must have 1 to 63 bytes".to_owned());
            self.check(seen.insert(name), &place, || format!("{name:?} is there twice"));
        }
        seen
    }
}

/// The names that others refer to.
struct Names<'a> {
    receivers: BTreeSet<&'a str>,
    actions: BTreeSet<&'a str>,
    intervals: BTreeSet<&'a str>,
}

impl AlertPolicySpec {
    /// What is wrong with the policy beyond its schema, each with the place in the object; empty for a good one.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Problems { found: Vec::new() };
        let one_target = self.target_ref.is_some() != self.target_selector.is_some();
        problems.check(one_target, "spec", || "exactly one of targetRef and targetSelector is needed".to_owned());
        problems.within(self.interval, 5, HOUR, "spec.interval");
        problems.within(self.dedup_interval, 0, DAY, "spec.dedupInterval");
        for (count, most, place) in [
            (self.rules.len(), 64, "spec.rules"),
            (self.routes.len(), 64, "spec.routes"),
            (self.receivers.len(), 32, "spec.receivers"),
            (self.inhibit_rules.len(), 32, "spec.inhibitRules"),
            (self.time_intervals.len(), 32, "spec.timeIntervals"),
            (self.silences.len(), 64, "spec.silences"),
            (self.actions.len(), 32, "spec.actions"),
        ] {
            problems.at_most(count, most, place);
        }
        problems.check(!self.rules.is_empty(), "spec.rules", || "at least one is needed".to_owned());
        problems.names(self.rules.iter().map(|rule| rule.name.as_str()), "spec.rules");
        let names = Names {
            receivers: problems.names(self.receivers.iter().map(|member| member.name.as_str()), "spec.receivers"),
            actions: problems.names(self.actions.iter().map(|member| member.name.as_str()), "spec.actions"),
            intervals: problems
                .names(self.time_intervals.iter().map(|member| member.name.as_str()), "spec.timeIntervals"),
        };
        for (index, route) in self.routes.iter().enumerate() {
            of_route(&mut problems, route, &names, &format!("spec.routes[{index}]"));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            of_rule(&mut problems, rule, self.interval, &names, &format!("spec.rules[{index}]"));
        }
        for (index, receiver) in self.receivers.iter().enumerate() {
            of_receiver(&mut problems, receiver, &format!("spec.receivers[{index}]"));
        }
        for (index, interval) in self.time_intervals.iter().enumerate() {
            of_interval(&mut problems, interval, &format!("spec.timeIntervals[{index}]"));
        }
        for (index, inhibit) in self.inhibit_rules.iter().enumerate() {
            let place = format!("spec.inhibitRules[{index}]");
            let both = !inhibit.source_matchers.is_empty() && !inhibit.target_matchers.is_empty();
            problems.check(both, &place, || "sourceMatchers and targetMatchers are needed".to_owned());
        }
        for (index, silence) in self.silences.iter().enumerate() {
            let place = format!("spec.silences[{index}]");
            let before = silence.starts_at.as_ref().is_none_or(|starts| starts.0 < silence.ends_at.0);
            problems.check(before, &place, || "a silence begins before it ends".to_owned());
            problems.check(!silence.matchers.is_empty(), &place, || "at least one matcher is needed".to_owned());
        }
        for (index, action) in self.actions.iter().enumerate() {
            of_action(&mut problems, action, &format!("spec.actions[{index}]"));
        }
        problems.found
    }
}

fn of_route(problems: &mut Problems, route: &Route, names: &Names<'_>, place: &str) {
    problems.known(&names.receivers, &route.receiver, "receiver", &format!("{place}.receiver"));
    for (level, receiver) in route.escalate_to.iter().enumerate() {
        problems.known(&names.receivers, receiver, "receiver", &format!("{place}.escalateTo[{level}]"));
    }
    problems.at_most(route.escalate_to.len(), 3, &format!("{place}.escalateTo"));
    problems.check(route.escalate_after.is_some() != route.escalate_to.is_empty(), place, || {
        "escalateAfter and escalateTo need each other".to_owned()
    });
    if let Some(after) = route.escalate_after {
        problems.within(after, MINUTE, WEEK, &format!("{place}.escalateAfter"));
    }
    problems.within(route.group_wait, 0, DAY, &format!("{place}.groupWait"));
    problems.within(route.group_interval, 1, DAY, &format!("{place}.groupInterval"));
    problems.within(route.repeat_interval, MINUTE, WEEK, &format!("{place}.repeatInterval"));
    problems.at_most(route.matchers.len(), 16, &format!("{place}.matchers"));
    for (field, intervals) in
        [("muteTimeIntervals", &route.mute_time_intervals), ("activeTimeIntervals", &route.active_time_intervals)]
    {
        for (index, interval) in intervals.iter().enumerate() {
            problems.known(&names.intervals, interval, "time interval", &format!("{place}.{field}[{index}]"));
        }
    }
}

fn of_rule(problems: &mut Problems, rule: &AlertRule, interval: Duration, names: &Names<'_>, place: &str) {
    let kinds =
        [rule.expr.is_some(), rule.all.is_some(), rule.anomaly.is_some(), rule.trend.is_some(), rule.absence.is_some()];
    problems.check(kinds.into_iter().filter(|is| *is).count() == 1, place, || {
        "a rule has exactly one of expr, all, anomaly, trend and absence".to_owned()
    });
    let mut watched = Vec::new();
    watched.extend(rule.expr.iter().map(|expr| ("expr".to_owned(), &expr.indicator, expr.window)));
    for (index, expr) in rule.all.iter().flatten().enumerate() {
        watched.push((format!("all[{index}]"), &expr.indicator, expr.window));
    }
    watched.extend(rule.anomaly.iter().map(|anomaly| ("anomaly".to_owned(), &anomaly.indicator, anomaly.window)));
    watched.extend(rule.trend.iter().map(|trend| ("trend".to_owned(), &trend.indicator, trend.window)));
    watched.extend(rule.absence.iter().map(|absence| ("absence".to_owned(), &absence.indicator, absence.window)));
    for (member, indicator, window) in watched {
        problems.check(indicator_named(indicator).is_some(), &format!("{place}.{member}.indicator"), || {
            let known: Vec<&str> = INDICATORS.iter().map(|indicator| indicator.name).collect();
            format!("{indicator:?} is unknown; known are {}", known.join(", "))
        });
        let window_at = format!("{place}.{member}.window");
        problems.within(window, 1, DAY, &window_at);
        let intervals = window.0.as_millis() / interval.0.as_millis().max(1);
        problems.check(intervals <= u128::from(SAMPLES_MAX), &window_at, || {
            format!(
                "holds {intervals} intervals of {interval}, at most {SAMPLES_MAX} are kept: make spec.interval longer"
            )
        });
    }
    if let Some(all) = &rule.all {
        problems.check((2..=8).contains(&all.len()), &format!("{place}.all"), || "2 to 8 are needed".to_owned());
    }
    if let Some(anomaly) = &rule.anomaly {
        let good = (0.1..=100.0).contains(&anomaly.z_score);
        problems.check(good, &format!("{place}.anomaly.zScore"), || "must be between 0.1 and 100".to_owned());
    }
    if let Some(trend) = &rule.trend {
        problems.within(trend.within, MINUTE, WEEK, &format!("{place}.trend.within"));
    }
    problems.within(rule.for_, 0, DAY, &format!("{place}.for"));
    problems.within(rule.keep_firing_for, 0, DAY, &format!("{place}.keepFiringFor"));
    problems.at_most(rule.labels.len(), 8, &format!("{place}.labels"));
    for (name, value) in &rule.labels {
        let place = format!("{place}.labels.{name}");
        problems.check(is_label_name(name), &place, || {
            "a label's name has 1 to 63 letters, digits and '_', and begins with a letter or '_'".to_owned()
        });
        problems.check(value.len() <= 63, &place, || "at most 63 bytes".to_owned());
        let free = !RESERVED_LABELS.contains(&name.as_str());
        problems.check(free, &place, || "every alert has a label of this name already".to_owned());
    }
    for (index, action) in rule.actions.iter().enumerate() {
        problems.known(&names.actions, action, "action", &format!("{place}.actions[{index}]"));
    }
    problems.at_most(rule.actions.len(), 4, &format!("{place}.actions"));
}

fn is_label_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.len() <= 63 && name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn of_receiver(problems: &mut Problems, receiver: &Receiver, place: &str) {
    let kinds = [
        receiver.slack.is_some(),
        receiver.discord.is_some(),
        receiver.email.is_some(),
        receiver.webhook.is_some(),
        receiver.pagerduty.is_some(),
        receiver.log.is_some(),
        receiver.file.is_some(),
        receiver.event.is_some(),
    ];
    problems.check(kinds.into_iter().filter(|is| *is).count() == 1, place, || {
        "a receiver has exactly one of slack, discord, email, webhook, pagerduty, log, file and event".to_owned()
    });
    problems.within(receiver.timeout, 1, MINUTE, &format!("{place}.timeout"));
    if let Some(webhook) = &receiver.webhook {
        of_webhook(problems, webhook, &format!("{place}.webhook"));
    }
    if let Some(email) = &receiver.email {
        let place = format!("{place}.email");
        let login = email.username_secret_ref.is_some() == email.password_secret_ref.is_some();
        problems.check(login, &place, || "usernameSecretRef and passwordSecretRef need each other".to_owned());
        let clear = email.security == super::EmailSecurity::None && email.password_secret_ref.is_some();
        problems.check(!clear, &place, || "a password isn't sent without TLS".to_owned());
        problems.check((1..=16).contains(&email.to.len()), &format!("{place}.to"), || "1 to 16 are needed".to_owned());
        let port = email.port.is_none_or(|port| (1..=65_535).contains(&port));
        problems.check(port, &format!("{place}.port"), || "must be between 1 and 65535".to_owned());
    }
    if let Some(file) = &receiver.file {
        let good = file.name.len() <= 128
            && file.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && file.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        problems.check(good, &format!("{place}.file.name"), || "a file's name without a folder is needed".to_owned());
    }
}

fn of_webhook(problems: &mut Problems, webhook: &WebhookReceiver, place: &str) {
    problems.check(webhook.url.is_some() != webhook.url_secret_ref.is_some(), place, || {
        "exactly one of url and urlSecretRef is needed".to_owned()
    });
}

fn of_interval(problems: &mut Problems, interval: &TimeInterval, place: &str) {
    problems.at_most(interval.times.len(), 8, &format!("{place}.times"));
    problems.at_most(interval.weekdays.len(), 7, &format!("{place}.weekdays"));
    for (index, range) in interval.times.iter().enumerate() {
        problems.check(range.start < range.end, &format!("{place}.times[{index}]"), || {
            "start must be before end; a range over midnight is two ranges".to_owned()
        });
    }
}

fn of_action(problems: &mut Problems, action: &ActionSpec, place: &str) {
    let scale = action.type_ == ActionType::Scale;
    let pods = scale || action.type_ == ActionType::RestartComponent;
    problems.check(action.component.is_some() == pods, place, || {
        "component belongs to RestartComponent and Scale, and they need it".to_owned()
    });
    problems
        .check(action.replicas.is_some() == scale, place, || "replicas belongs to Scale, which needs it".to_owned());
    let scalable = action.component.is_none_or(|it| matches!(it, Component::Gateway | Component::Worker));
    problems
        .check(!scale || scalable, &format!("{place}.component"), || "only Gateway and Worker are scaled".to_owned());
    problems.check(action.webhook.is_some() == (action.type_ == ActionType::Webhook), place, || {
        "webhook belongs to the type Webhook, which needs it".to_owned()
    });
    if let Some(webhook) = &action.webhook {
        of_webhook(problems, webhook, &format!("{place}.webhook"));
    }
    let count = |number: Option<i32>, most| number.is_none_or(|number| (1..=most).contains(&number));
    problems
        .check(count(action.replicas, 500), &format!("{place}.replicas"), || "must be between 1 and 500".to_owned());
    problems.check(count(Some(action.max_retries), 20), &format!("{place}.maxRetries"), || {
        "must be between 1 and 20".to_owned()
    });
    problems.within(action.cooldown, MINUTE, WEEK, &format!("{place}.cooldown"));
    problems.within(action.retry_period, 10, DAY, &format!("{place}.retryPeriod"));
    problems.within(action.min_healthy_period, MINUTE, WEEK, &format!("{place}.minHealthyPeriod"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: &str) -> String {
        let spec: AlertPolicySpec = serde_yaml::from_str(spec).unwrap();
        spec.problems().join("\n")
    }

    const RULE: &str = "rules: [{name: r, expr: {indicator: queue_size, operator: GreaterThan, threshold: 1}}]";

    #[test]
    fn a_minimal_policy_has_no_problems_and_every_default() {
        let spec: AlertPolicySpec = serde_yaml::from_str(&format!("{{targetRef: {{name: demo}}, {RULE}}}")).unwrap();
        assert_eq!(spec.problems(), Vec::<String>::new());
        assert_eq!((spec.mode, spec.interval.to_string().as_str()), (super::super::Mode::Enforce, "15s"));
        assert_eq!(spec.dedup_interval.to_string(), "1h");
        assert_eq!(spec.rules[0].for_, Duration::from_secs(0));
    }

    #[test]
    fn what_does_not_fit_together_is_named_with_its_place() {
        let rule = |rule: &str| format!("{{targetRef: {{name: d}}, rules: [{rule}]}}");
        let more = |more: &str| format!("{{targetRef: {{name: d}}, {RULE}, {more}}}");
        let expr = "expr: {indicator: up, operator: LessThan, threshold: 1";
        for (spec, problem) in [
            (format!("{{{RULE}}}"), "spec: exactly one of targetRef"),
            (more("interval: 1s"), "spec.interval: must be between 5s and 1h"),
            (rule("{name: r}"), "spec.rules[0]: a rule has exactly one of"),
            (rule("{name: r, absence: {indicator: nope}}"), "spec.rules[0].absence.indicator: \"nope\" is unknown"),
            (rule(&format!("{{name: r, {expr}, window: 20h}}}}")), "spec.rules[0].expr.window: holds 4800 intervals"),
            (
                rule(&format!("{{name: r, {expr}}}, labels: {{cluster: a}}}}")),
                "spec.rules[0].labels.cluster: every alert",
            ),
            (rule(&format!("{{name: r, {expr}}}, labels: {{a-b: a}}}}")), "spec.rules[0].labels.a-b: a label's name"),
            (
                rule(&format!("{{name: r, {expr}}}, actions: [a]}}")),
                "spec.rules[0].actions[0]: there is no action \"a\"",
            ),
            (
                rule(&format!("{{name: r, {expr}}}}}, {{name: r, {expr}}}}}")),
                "spec.rules[1].name: \"r\" is there twice",
            ),
            (more("routes: [{receiver: a}]"), "spec.routes[0].receiver: there is no receiver \"a\""),
            (
                more("receivers: [{name: a, log: {}}], routes: [{receiver: a, escalateAfter: 5m}]"),
                "spec.routes[0]: escalateAfter and escalateTo",
            ),
            (
                more("receivers: [{name: a, log: {}}], routes: [{receiver: a, muteTimeIntervals: [n]}]"),
                "spec.routes[0].muteTimeIntervals[0]: there is no time interval \"n\"",
            ),
            (more("receivers: [{name: a}]"), "spec.receivers[0]: a receiver has exactly one of"),
            (more("receivers: [{name: a, webhook: {}}]"), "spec.receivers[0].webhook: exactly one of url"),
            (more("receivers: [{name: a, file: {name: ../etc}}]"), "spec.receivers[0].file.name: a file's name"),
            (
                more("timeIntervals: [{name: n, times: [{start: \"22:00\", end: \"06:00\"}]}]"),
                "spec.timeIntervals[0].times[0]: start must be before end",
            ),
            (
                more("silences: [{matchers: [], endsAt: \"2030-01-01T00:00:00Z\"}]"),
                "spec.silences[0]: at least one matcher",
            ),
            (
                more("actions: [{name: a, type: Scale, component: Worker}]"),
                "spec.actions[0]: replicas belongs to Scale",
            ),
            (
                more("actions: [{name: a, type: Scale, component: Redis, replicas: 2}]"),
                "spec.actions[0].component: only Gateway and Worker",
            ),
            (more("actions: [{name: a, type: Suspend, webhook: {url: x}}]"), "spec.actions[0]: webhook belongs"),
        ] {
            let found = problems(&spec);
            assert!(found.contains(problem), "{spec}: {found}");
        }
    }

    #[test]
    fn the_definition_lists_every_indicator_with_its_unit() {
        let crd = serde_json::to_string(&crate::crds()[1]).unwrap().replace("\\n", " ");
        for indicator in INDICATORS {
            assert!(crd.contains(indicator.name), "{}", indicator.name);
        }
    }
}
