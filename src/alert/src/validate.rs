//! Checks what only this crate understands: templates, addresses, URLs.

use hebb_api::{AlertPolicySpec, WebhookReceiver};
use hyper::Uri;
use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Value, context};

use crate::message::Message;
use crate::policy::Policy;
use crate::state;
use crate::template;

/// Everything that is wrong with a policy, each with the place in the object; empty for a good one.
pub fn problems(spec: &AlertPolicySpec) -> Vec<String> {
    Policy::new("default", "policy", spec).err().unwrap_or_default()
}

pub(crate) fn contents(policy: &Policy, problems: &mut Vec<String>) {
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        let labels = state::labels(&policy.namespace, &policy.name, rule, "demo");
        let example = policy.known(rule, "demo", &labels, Some(1.5));
        for (field, template) in [
            ("summary", &rule.annotations.summary),
            ("description", &rule.annotations.description),
            ("runbookUrl", &rule.annotations.runbook_url),
        ] {
            if let Some(problem) = template.as_ref().and_then(|template| template::problem(template, &example)) {
                problems.push(format!("spec.rules[{index}].annotations.{field}: {problem}"));
            }
        }
        let thresholds = rule.expr.iter().chain(rule.all.iter().flatten()).map(|expr| expr.threshold);
        if thresholds.chain(rule.trend.iter().map(|trend| trend.threshold)).any(|threshold| !threshold.is_finite()) {
            problems.push(format!("spec.rules[{index}]: a threshold is no number"));
        }
    }
    for (index, receiver) in policy.spec.receivers.iter().enumerate() {
        let place = format!("spec.receivers[{index}]");
        if let Some(hook) = &receiver.webhook {
            let example = of_message(&Message::test("default/policy", Timestamp::UNIX_EPOCH));
            webhook(hook, &example, &format!("{place}.webhook"), problems);
        }
        if let Some(url) = receiver.pagerduty.as_ref().and_then(|pagerduty| pagerduty.url.as_ref()) {
            problems.extend(url_problem(url).map(|problem| format!("{place}.pagerduty.url: {problem}")));
        }
        if let Some(email) = &receiver.email {
            for (field, address) in
                std::iter::once(("from", &email.from)).chain(email.to.iter().map(|address| ("to", address)))
            {
                if address.parse::<lettre::message::Mailbox>().is_err() {
                    problems.push(format!("{place}.email.{field}: {address:?} is no address"));
                }
            }
        }
    }
    for (index, action) in policy.spec.actions.iter().enumerate() {
        if let Some(hook) = &action.webhook {
            let example = of_run(&action.name, "demo", "rule", 1);
            webhook(hook, &example, &format!("spec.actions[{index}].webhook"), problems);
        }
    }
}

fn webhook(webhook: &WebhookReceiver, example: &Value, place: &str, problems: &mut Vec<String>) {
    if let Some(url) = &webhook.url {
        problems.extend(url_problem(url).map(|problem| format!("{place}.url: {problem}")));
    }
    if let Some(body) = &webhook.body {
        let problem = template::problem(body, example);
        problems.extend(problem.map(|problem| format!("{place}.body: {problem}")));
    }
}

/// What the template of a body may name.
pub(crate) fn of_message(message: &Message) -> Value {
    context!(message => Value::from(Serde(message)))
}

/// What the template of an action's body may name.
pub(crate) fn of_run(action: &str, target: &str, rule: &str, attempt: u32) -> Value {
    context!(run => context!(action => action, target => target, rule => rule, attempt => attempt))
}

/// What is wrong with a URL, in words that don't repeat it: it may be a secret.
pub(crate) fn url_problem(url: &str) -> Option<String> {
    let Ok(uri) = url.parse::<Uri>() else { return Some("is no URL".to_owned()) };
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Some("must begin with https:// or http:// and a host".to_owned());
    }
    let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    user.then(|| "must not hold a user or a password: use authorizationSecretRef".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "{name: r, expr: {indicator: up, operator: LessThan, threshold: 1}";

    fn check(spec: &str, problem: &str) {
        let spec: AlertPolicySpec = serde_yaml::from_str(spec).unwrap();
        let found = problems(&spec).join("\n");
        if problem.is_empty() {
            assert_eq!(found, "");
        } else {
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn what_only_this_crate_understands_is_checked() {
        let rule = |rest: &str| format!("{{targetRef: {{name: d}}, rules: [{RULE}, {rest}}}]}}");
        let more = |rest: &str| format!("{{targetRef: {{name: d}}, rules: [{RULE}}}], {rest}}}");
        let route =
            |rest: &str| more(&format!("receivers: [{{name: l, log: {{}}}}], routes: [{{receiver: l, {rest}}}]"));
        let receiver = |rest: &str| more(&format!("receivers: [{{name: l, {rest}}}]"));
        check(&rule("annotations: {summary: '{{ target }} {{ labels.severity }} {{ value|round(2) }}'}"), "");
        check(&rule("annotations: {summary: '{{ tarket }}'}"), "spec.rules[0].annotations.summary: undefined");
        check(&rule("annotations: {description: '{{ labels.team }}'}"), "spec.rules[0].annotations.description");
        check(&rule("annotations: {runbookUrl: '{% if %}'}"), "spec.rules[0].annotations.runbookUrl: syntax error");
        check(&route("matchers: [{name: a, matchType: '=~', value: '('}]"), "spec.routes[0].matchers[0].value");
        check(&more("timeIntervals: [{name: n, location: Nowhere}]"), "spec.timeIntervals[0].location");
        check(&receiver("webhook: {url: 'ftp://x'}"), "spec.receivers[0].webhook.url: must begin with https");
        check(&receiver("webhook: {url: 'https://u:p@x/'}"), "must not hold a user");
        check(&receiver("webhook: {url: 'https://x/', body: '{{ message.titel }}'}"), "spec.receivers[0].webhook.body");
        check(&receiver("webhook: {url: 'https://x/', body: '{{ message|tojson }}'}"), "");
        check(&receiver("email: {host: h, from: nobody, to: ['a@b.c']}"), "spec.receivers[0].email.from");
        check(&receiver("email: {host: h, from: 'Hebb <hebb@b.c>', to: ['a@b.c']}"), "");
    }
}
