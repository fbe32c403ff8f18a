//! What is said of a submission: pure. What can never work is refused; what may yet come is a warning, for those who apply
//! many objects at once do so in any order.

use std::collections::BTreeSet;

use hebb_api::AlertPolicy;

use super::facts::{Facts, Found};
use super::mention::{Mention, Thing};
use super::submission::{Subject, Submission};

/// Warnings of one answer; the API server shows 4,096 bytes of them at most.
const WARNINGS_MAX: usize = 16;
/// Bytes of one warning; the API server cuts longer ones off.
const WARNING_MAX: usize = 250;
/// Bytes of the reason for a refusal.
const REFUSAL_MAX: usize = 4_096;

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object isn't taken, where it isn't.
    pub refusal: Option<String>,
    /// What the user should know of all the same.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// The word for it in the metrics.
    pub fn outcome(&self) -> &'static str {
        match (&self.refusal, self.warnings.is_empty()) {
            (Some(_), _) => "refused",
            (None, false) => "warned",
            (None, true) => "allowed",
        }
    }
}

/// Judges a submission by what is known of the things that it names.
pub fn review(submission: &Submission, mentions: &[Mention], facts: &Facts) -> Verdict {
    if !submission.problems.is_empty() {
        let refusal = cut(submission.problems.join("; "), REFUSAL_MAX);
        return Verdict { refusal: Some(refusal), warnings: Vec::new() };
    }
    let standing = submission.standing.iter().map(|problem| format!("{problem} (as before)"));
    let missing = mentions.iter().filter_map(|mention| warning(mention, facts.found.get(&mention.thing)?));
    let more = match &submission.subject {
        Subject::Policy(policy) => useless(policy, facts),
        Subject::Unreadable(why) => vec![format!("this version of the operator can't read the object: {why}")],
        Subject::Cluster(_) => Vec::new(),
    };
    let mut said = BTreeSet::new();
    let warnings = standing.chain(missing).chain(more).map(|warning| cut(warning, WARNING_MAX));
    Verdict { refusal: None, warnings: warnings.filter(|it| said.insert(it.clone())).take(WARNINGS_MAX).collect() }
}

fn warning(mention: &Mention, found: &Found) -> Option<String> {
    let place = &mention.place;
    Some(match (&mention.thing, found) {
        (Thing::Secret(name), Found::Missing) => format!("{place}: there is no Secret {name} yet"),
        (Thing::Secret(name), Found::Keys(keys)) => {
            let missing: Vec<&str> =
                mention.keys.iter().filter(|key| !keys.contains(*key)).map(String::as_str).collect();
            if missing.is_empty() {
                return None;
            }
            format!("{place}: Secret {name} has no {}", missing.join(", "))
        }
        (Thing::Claim(name), Found::Missing) => format!("{place}: there is no PersistentVolumeClaim {name} yet"),
        (Thing::UsedClaim(name), Found::There) => format!(
            "{place}: PersistentVolumeClaim {name} is there already, and what it holds isn't overwritten: delete it, or choose another name"
        ),
        (Thing::Cluster(name), Found::Missing) => format!("{place}: there is no LearningCluster {name} yet"),
        (Thing::Clusters(labels), Found::Missing) => {
            format!("{place}: there is no LearningCluster with {labels} yet")
        }
        (Thing::CertManager(_), Found::Unusable(why)) => format!("{place}: {why}"),
        (Thing::Child(kind, name), Found::Unowned) => {
            format!("{place}: {kind:?} {name} is there already and nobody's: it is taken over and overwritten")
        }
        (Thing::Child(kind, name), Found::OwnedBy(owner)) => {
            format!(
                "{place}: {kind:?} {name} is there already and belongs to {owner}: choose another name, or remove it"
            )
        }
        _ => return None,
    })
}

/// Receivers that this operator never tells anything.
fn useless(policy: &AlertPolicy, facts: &Facts) -> Vec<String> {
    let closed = !facts.egress.private && facts.egress.exceptions.is_empty();
    let mut warnings = Vec::new();
    for (index, receiver) in policy.spec.receivers.iter().enumerate() {
        let place = format!("spec.receivers[{index}]");
        if receiver.file.is_some() {
            warnings.push(format!("{place}.file: the operator writes no files; this is for hebb start"));
        }
        let private = receiver.slack.as_ref().is_some_and(|slack| slack.allow_private)
            || receiver.email.as_ref().is_some_and(|email| email.allow_private)
            || receiver.webhook.as_ref().is_some_and(|webhook| webhook.allow_private);
        if private && closed {
            warnings.push(format!(
                "{place}: allowPrivate has no effect while the operator doesn't allow it (receivers.allowPrivate of its chart)"
            ));
        }
    }
    warnings
}

fn cut(mut text: String, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hebb_alert::notify::Egress;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::mention::children;
    use super::super::review::Review;
    use super::*;
    use crate::learning_cluster::render::Kind;
    use crate::learning_cluster::topology::example;

    const RULE: &str = "{name: r, expr: {indicator: up, operator: LessThan, threshold: 1}}";

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    fn object(kind: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": kind, "metadata": {"name": "demo", "namespace": "ns"}, "spec": spec,
        })
    }

    fn asked(operation: &str, kind: &str, object: Value, former: Value) -> Review {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "kind": {"group": "hebb.dev", "version": "v1alpha1", "kind": kind}, "operation": operation,
            "namespace": "ns", "object": object, "oldObject": former,
        }});
        Review::read(body.to_string().as_bytes()).unwrap()
    }

    fn judged(asked: &Review, facts: &Facts) -> Verdict {
        let Some(submission) = Submission::of(asked) else { return Verdict::default() };
        review(&submission, &submission.mentions(&example::defaults()), facts)
    }

    fn created(kind: &str, spec: &str) -> Review {
        asked("CREATE", kind, object(kind, &yaml(spec)), Value::Null)
    }

    fn changed(kind: &str, from: &str, to: &str) -> Review {
        asked("UPDATE", kind, object(kind, &yaml(to)), object(kind, &yaml(from)))
    }

    fn facts<const N: usize>(found: [(Thing, Found); N]) -> Facts {
        Facts { found: BTreeMap::from(found), egress: Egress::default() }
    }

    fn keys(names: &[&str]) -> Found {
        Found::Keys(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn warned(kind: &str, spec: &str, thing: Thing, found: Found) -> String {
        let verdict = judged(&created(kind, spec), &facts([(thing, found)]));
        assert_eq!(verdict.refusal, None, "{spec}");
        verdict.warnings.join("\n")
    }

    #[test]
    fn what_can_never_work_is_refused_with_its_place() {
        let policy = |rest: &str| format!("{{targetRef: {{name: d}}, rules: [{RULE}], {rest}}}");
        for (kind, spec, named) in [
            ("LearningCluster", "{engine: {checkpointInterval: 0s}}".to_owned(), "spec.engine.checkpointInterval: must"),
            (
                "LearningCluster",
                "{backup: {schedule: '61 * * * *', destination: {persistentVolumeClaim: {size: 1Gi}}}}".to_owned(),
                "spec.backup.schedule: \"61\" is no minute",
            ),
            ("AlertPolicy", policy("routes: [{receiver: nobody}]"), "spec.routes[0].receiver: there is no receiver"),
            ("AlertPolicy", policy("timeIntervals: [{name: n, location: Nowhere}]"), "spec.timeIntervals[0].location"),
            (
                "AlertPolicy",
                "{targetRef: {name: d}, rules: [{name: r, expr: {indicator: up, operator: LessThan, threshold: 1}, annotations: {summary: '{{ tarket }}'}}]}".to_owned(),
                "spec.rules[0].annotations.summary",
            ),
        ] {
            let verdict = judged(&created(kind, &spec), &Facts::default());
            let refusal = verdict.refusal.unwrap_or_default();
            assert!(refusal.contains(named), "{spec}: {refusal}");
        }
    }

    #[test]
    fn what_a_cluster_names_and_is_not_there_is_a_warning() {
        let secret = |name: &str| Thing::Secret(name.to_owned());
        let claim = |name: &str| Thing::Claim(name.to_owned());
        let cluster = |spec, thing, found| warned("LearningCluster", spec, thing, found);
        let keyed = "{gateway: {auth: {secretRef: {name: k}}}}";
        assert_eq!(
            cluster(keyed, secret("k"), Found::Missing),
            "spec.gateway.auth.secretRef: there is no Secret k yet"
        );
        assert_eq!(cluster(keyed, secret("k"), keys(&[])), "");
        let external = "{redis: {mode: External, external: {host: r, passwordSecretRef: {name: s, key: p}, tls: {secretName: t, clientCertificate: true}}}}";
        assert_eq!(
            cluster(external, secret("s"), keys(&["q"])),
            "spec.redis.external.passwordSecretRef: Secret s has no p"
        );
        assert_eq!(
            cluster(external, secret("t"), keys(&["ca.crt"])),
            "spec.redis.external.tls.secretName: Secret t has no tls.crt, tls.key"
        );
        let sealed = "{redis: {tls: {secretRef: {name: t}}}}";
        assert!(cluster(sealed, secret("t"), Found::Missing).starts_with("spec.redis.tls.secretRef: there is no"));
        let issued = "{redis: {tls: {issuerRef: {name: i}}}}";
        let manager = Thing::CertManager("demo-redis-tls".to_owned());
        let said = cluster(issued, manager, Found::Unusable("install cert-manager".to_owned()));
        assert_eq!(said, "spec.redis.tls.issuerRef: install cert-manager");
        let pulled = "{workers: {podTemplate: {imagePullSecrets: [a, b]}}}";
        assert_eq!(
            cluster(pulled, secret("b"), Found::Missing),
            "spec.workers.podTemplate.imagePullSecrets[1]: there is no Secret b yet"
        );
        let kept = "{backup: {destination: {persistentVolumeClaim: {claimName: c}}}}";
        assert!(cluster(kept, claim("c"), Found::Missing).contains("there is no PersistentVolumeClaim c yet"));
        let restored = "{restore: {from: {persistentVolumeClaim: {claimName: c}}}, redis: {storage: {size: 1Gi}}}";
        assert!(cluster(restored, claim("c"), Found::Missing).starts_with("spec.restore.from"));
        let used = Thing::UsedClaim("data-demo-redis-0".to_owned());
        assert!(cluster(restored, used.clone(), Found::There).contains("isn't overwritten"));
        assert_eq!(cluster(restored, used, Found::Missing), "");
        let service = Thing::Child(Kind::Service, "demo-gateway".to_owned());
        assert!(cluster("{}", service.clone(), Found::Unowned).contains("Service demo-gateway is there already"));
        let theirs = Found::OwnedBy("Deployment web".to_owned());
        assert!(cluster("{}", service.clone(), theirs).contains("belongs to Deployment web"));
        assert_eq!(cluster("{}", service, Found::There), "");
    }

    #[test]
    fn what_a_policy_names_and_is_not_there_is_a_warning() {
        let policy = |spec: &str, thing, found| warned("AlertPolicy", spec, thing, found);
        let aimed = format!("{{targetRef: {{name: d}}, rules: [{RULE}]}}");
        let target = Thing::Cluster("d".to_owned());
        assert_eq!(policy(&aimed, target.clone(), Found::Missing), "spec.targetRef: there is no LearningCluster d yet");
        assert_eq!(policy(&aimed, target.clone(), Found::There), "");
        let labelled = format!("{{targetSelector: {{matchLabels: {{a: b, c: d}}}}, rules: [{RULE}]}}");
        let selected = Thing::Clusters("a=b,c=d".to_owned());
        assert!(policy(&labelled, selected, Found::Missing).contains("no LearningCluster with a=b,c=d"));
        let more = |rest: &str| format!("{{targetRef: {{name: d}}, rules: [{RULE}], {rest}}}");
        let slack = more("receivers: [{name: s, slack: {urlSecretRef: {name: hook, key: url}}}]");
        let hook = Thing::Secret("hook".to_owned());
        assert_eq!(policy(&slack, hook.clone(), Found::Missing), "spec.receivers[0]: there is no Secret hook yet");
        assert_eq!(policy(&slack, hook.clone(), keys(&["uri"])), "spec.receivers[0]: Secret hook has no url");
        assert_eq!(policy(&slack, hook.clone(), keys(&["url"])), "");
        let action = more("actions: [{name: a, type: Webhook, webhook: {urlSecretRef: {name: hook, key: url}}}]");
        assert!(policy(&action, hook, Found::Missing).starts_with("spec.actions[0].webhook: there is no Secret hook"));
        let file = more("receivers: [{name: f, file: {name: a}}]");
        assert!(policy(&file, target.clone(), Found::There).contains("the operator writes no files"));
        let private = more("receivers: [{name: w, webhook: {url: 'http://a/', allowPrivate: true}}]");
        assert!(policy(&private, target.clone(), Found::There).contains("allowPrivate has no effect"));
        let open = Facts { egress: Egress { private: true, ..Egress::default() }, ..Facts::default() };
        assert_eq!(judged(&created("AlertPolicy", &private), &open), Verdict::default());
    }

    #[test]
    fn what_was_wrong_before_hinders_no_change() {
        let bad = "{engine: {checkpointInterval: 0s}, workers: {replicas: 2}}";
        let scaled = "{engine: {checkpointInterval: 0s}, workers: {replicas: 3}}";
        let verdict = judged(&changed("LearningCluster", bad, scaled), &Facts::default());
        assert_eq!(verdict.refusal, None);
        assert!(verdict.warnings[0].contains("checkpointInterval") && verdict.warnings[0].ends_with("(as before)"));
        let worse = "{engine: {checkpointInterval: 0s, syncInterval: 0s}, workers: {replicas: 3}}";
        let refusal = judged(&changed("LearningCluster", bad, worse), &Facts::default()).refusal.unwrap();
        assert!(refusal.contains("syncInterval") && !refusal.contains("checkpointInterval"), "{refusal}");
    }

    #[test]
    fn what_another_version_may_read_is_not_refused() {
        let (unreadable, bad) = ("{engine: {gateMode: Never}}", "{engine: {checkpointInterval: 0s}}");
        let verdict = judged(&created("LearningCluster", unreadable), &Facts::default());
        assert_eq!(verdict.refusal, None);
        assert!(verdict.warnings[0].contains("can't read the object: unknown variant"), "{verdict:?}");
        assert_eq!(judged(&changed("LearningCluster", unreadable, "{}"), &Facts::default()), Verdict::default());
        assert_eq!(judged(&changed("LearningCluster", unreadable, bad), &Facts::default()).refusal, None);
    }

    #[test]
    fn an_object_that_goes_is_let_go() {
        let mut going = object("LearningCluster", &yaml("{engine: {syncInterval: 0s}}"));
        going["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        let former = object("LearningCluster", &json!({}));
        assert!(Submission::of(&asked("UPDATE", "LearningCluster", going.clone(), former)).is_none());
        assert!(Submission::of(&asked("DELETE", "LearningCluster", Value::Null, going)).is_none());
    }

    #[test]
    fn a_name_that_is_yet_to_be_made_is_no_problem() {
        let mut object = object("LearningCluster", &json!({}));
        object["metadata"] = json!({"generateName": "demo-"});
        assert_eq!(judged(&asked("CREATE", "LearningCluster", object, Value::Null), &Facts::default()).refusal, None);
    }

    /// Any JSON, of a few levels.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z0-9{}%:. -]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let field = "name|engine|workers|replicas|rules|receivers|routes|redis|tls|backup|[a-z]{1,6}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(field, inner, 0..5).prop_map(|map| json!(map)),
            ]
        })
    }

    fn any_kind() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("LearningCluster"), Just("AlertPolicy")]
    }

    proptest! {
        #[test]
        fn whoever_leaves_the_spec_alone_is_never_refused(
            kind in any_kind(), spec in any_json(), labels in any_json(), status in any_json(),
        ) {
            let former = object(kind, &spec);
            let mut next = former.clone();
            next["metadata"]["labels"] = labels;
            next["status"] = status;
            prop_assert_eq!(judged(&asked("UPDATE", kind, next, former), &Facts::default()), Verdict::default());
        }

        #[test]
        fn whatever_is_submitted_gets_an_answer_within_its_bounds(
            kind in any_kind(), spec in any_json(), former in any_json(),
        ) {
            for review in [
                asked("CREATE", kind, object(kind, &spec), Value::Null),
                asked("UPDATE", kind, object(kind, &spec), object(kind, &former)),
            ] {
                let verdict = judged(&review, &Facts::default());
                prop_assert!(verdict.refusal.is_none_or(|refusal| refusal.len() <= REFUSAL_MAX && !refusal.is_empty()));
                prop_assert!(verdict.warnings.len() <= WARNINGS_MAX);
                prop_assert!(verdict.warnings.iter().all(|warning| warning.len() <= WARNING_MAX));
            }
        }

        #[test]
        fn bytes_that_are_no_review_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..200), any in any_json()) {
            prop_assert!(Review::read(&bytes).is_err());
            let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": any});
            let _ = Review::read(body.to_string().as_bytes());
        }

        #[test]
        fn no_two_clusters_want_an_object_of_the_same_name(
            one in "[a-c]([a-c-]|redis|worker|backup|restore|tls){0,5}[a-c]", more in "(-[a-c]|-redis|-worker|-backup|-gateway|-tls|-config|-0){1,3}",
        ) {
            // One that is restored has no budgets and no autoscaler yet, and one that runs no Job.
            let specs = [
                "{redis: {mode: Sentinel}, restore: {from: {persistentVolumeClaim: {claimName: c}}}}",
                "{workers: {autoscaling: {strategy: Hpa}}, backup: {schedule: '0 0 * * *', destination: {persistentVolumeClaim: {size: 1Gi}}}}",
            ];
            let wanted = |name: &str| -> BTreeSet<(Kind, String)> {
                specs
                    .into_iter()
                    .flat_map(|spec| {
                        let mut cluster = example::cluster(yaml(spec));
                        cluster.metadata.name = Some(name.to_owned());
                        children(&cluster, &example::defaults())
                    })
                    .collect()
            };
            let (short, long) = (wanted(&one), wanted(&format!("{one}{more}")));
            for kind in [Kind::Secret, Kind::Service, Kind::Job, Kind::CronJob, Kind::HorizontalPodAutoscaler] {
                prop_assert!(short.iter().any(|(of, _)| *of == kind), "{:?}", kind);
            }
            prop_assert!(short.is_disjoint(&long), "{:?}", short.intersection(&long).collect::<Vec<_>>());
        }
    }
}
