//! Policies over time, as the operator lives them: observe, decide, store, send, store.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use hebb_alert::{FailureKind, Record, SendError, Standing};
use hebb_api::{AlertState, Phase};
use proptest::prelude::*;
use world::{Death, World};

const SLACKLESS: &str = "
targetSelector: {matchLabels: {a: b}}
rules:
  - name: lag
    expr: {indicator: queue_size, aggregation: Max, window: 30s, operator: GreaterThan, threshold: 900}
    for: 30s
    severity: Critical
    annotations: {summary: '{{ target }} has {{ value }} entries'}
routes: [{receiver: chat}]
receivers: [{name: chat, log: {}}]
";

#[test]
fn an_alert_is_told_once_repeated_after_hours_and_ended() {
    let mut world = World::new(SLACKLESS);
    world.set("demo", "queue_size", 950.0);
    world.run(60);
    assert_eq!(world.sent(), [] as [&str; 0], "it has fired for 30 s only, and the group waits");
    world.run(30);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on demo"]);
    assert_eq!(world.messages[0].alerts[0].summary, "demo has 950.0 entries");
    world.run(4 * 3_600 - 60);
    assert_eq!(world.sent().len(), 1);
    world.run(300);
    assert_eq!(world.sent().len(), 2, "told again after four hours");
    world.set("demo", "queue_size", 5.0);
    world.run(360);
    assert_eq!(world.sent()[2..], ["chat [RESOLVED] Critical: lag on demo"]);
    assert!(world.messages[2].alerts[0].ended.is_some());
    world.run(600);
    assert_eq!((world.record.alerts.len(), world.record.groups.len()), (0, 0), "nothing is left behind");
}

#[test]
fn the_shipped_alerts_are_measured_by_what_is_configured() {
    let shipped = hebb_api::load::load(hebb_alert::defaults::YAML).unwrap().policies.remove(0).spec;
    let mut world = World::new(&serde_yaml::to_string(&shipped).unwrap());
    // A long queue with room for a million, and a filter that rejects most because it should.
    for (indicator, value) in
        [("queue_size", 50_000.0), ("queue_usage_ratio", 0.05), ("rejection_rate", 0.9), ("acceptance_shortfall", 0.0)]
    {
        world.set("wide", indicator, value);
    }
    // A short one that is nearly full, a filter that rejects what it should not, and models that learn nothing.
    for (indicator, value) in
        [("queue_size", 46.0), ("queue_usage_ratio", 0.92), ("rejection_rate", 0.55), ("acceptance_shortfall", 0.36)]
    {
        world.set("narrow", indicator, value);
    }
    for (target, rate) in [("wide", 60.0), ("narrow", 0.0)] {
        world.set(target, "up", 1.0);
        world.set(target, "update_rate", rate);
    }
    world.run(1_200);
    let firing = world.status().alerts.into_iter().filter(|alert| alert.state == AlertState::Firing);
    let firing: BTreeSet<(String, String)> = firing.map(|alert| (alert.target, alert.rule)).collect();
    let expected = ["learning-stopped", "many-rejections", "queue-nearly-full"];
    assert_eq!(firing, expected.map(|rule| ("narrow".to_owned(), rule.to_owned())).into());
}

#[test]
fn a_selector_may_wait_for_a_cluster_and_a_name_may_not() {
    let mut world = World::new(SLACKLESS);
    world.run(30);
    let facts = world.facts();
    assert!(facts["Ready"].0 && !facts["TargetFound"].0 && !facts["Stalled"].0);
    world.change(&SLACKLESS.replace("targetSelector: {matchLabels: {a: b}}", "targetRef: {name: demo}"));
    world.run(30);
    let facts = world.facts();
    assert_eq!(facts["Ready"], (false, "no LearningCluster of this namespace has the name".to_owned()));
    assert!(!facts["Stalled"].0, "it may still come");
}

#[test]
fn a_second_cluster_is_news_of_the_same_group() {
    let mut world = World::new(SLACKLESS);
    world.set("a", "queue_size", 950.0);
    world.set("b", "queue_size", 5.0);
    world.run(90);
    world.set("b", "queue_size", 950.0);
    world.run(600);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on a", "chat [FIRING] Critical: lag on a, b"]);
    let keys: BTreeSet<&str> = world.messages.iter().map(|message| message.idempotency_key.as_str()).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(world.messages[0].group, world.messages[1].group);
}

#[test]
fn a_cluster_and_a_rule_that_go_take_their_alerts_with_them() {
    let mut world = World::new(SLACKLESS);
    world.set("demo", "queue_size", 950.0);
    world.set("other", "queue_size", 950.0);
    world.run(90);
    world.targets.remove("demo");
    world.run(360);
    let last = world.messages.last().unwrap();
    let ended: Vec<&str> = last
        .alerts
        .iter()
        .filter(|alert| alert.status == Standing::Resolved)
        .map(|alert| alert.target.as_str())
        .collect();
    assert_eq!(ended, ["demo"]);
    world.change(&SLACKLESS.replace("name: lag", "name: backlog"));
    world.run(400);
    assert!(world.sent().contains(&"chat [RESOLVED] Critical: lag on other"), "{:?}", world.sent());
}

#[test]
fn missing_data_keeps_an_alert_as_it_is() {
    let mut world = World::new(SLACKLESS);
    world.set("demo", "queue_size", 950.0);
    world.run(90);
    world.targets.get_mut("demo").unwrap().samples.clear();
    world.run(3_000);
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.record.alerts.values().next().unwrap().state, AlertState::Firing);
}

#[test]
fn an_upgrade_mutes_and_what_ended_in_it_is_told_afterwards() {
    let mut world = World::new(SLACKLESS);
    world.set("told", "queue_size", 950.0);
    world.run(90);
    for name in ["told", "new"] {
        world.set(name, "queue_size", 950.0);
        world.targets.get_mut(name).unwrap().phases.insert(Phase::Upgrade);
    }
    world.run(600);
    assert_eq!(world.status().alerts[0].muted_by.as_deref(), Some("Upgrade"));
    world.set("told", "queue_size", 0.0);
    world.run(600);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on told"]);
    for target in world.targets.values_mut() {
        target.phases.clear();
    }
    world.run(360);
    let last = world.messages.last().unwrap();
    let alerts: Vec<_> = last.alerts.iter().map(|alert| (alert.target.as_str(), alert.status)).collect();
    assert_eq!(alerts, [("new", Standing::Firing), ("told", Standing::Resolved)]);
}

#[test]
fn silences_inhibition_and_hours_of_the_week_keep_quiet() {
    let quiet = format!(
        "{SLACKLESS}
silences: [{{matchers: [{{name: cluster, value: silent}}], endsAt: '2100-01-01T00:00:00Z'}}]
inhibitRules: [{{sourceMatchers: [{{name: cluster, value: loud}}], targetMatchers: [{{name: cluster, value: small}}]}}]
"
    );
    let mut world = World::new(&quiet);
    for name in ["silent", "loud", "small"] {
        world.set(name, "queue_size", 950.0);
    }
    world.run(120);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on loud"]);
    let mutes: BTreeMap<String, Option<String>> =
        world.status().alerts.into_iter().map(|alert| (alert.target, alert.muted_by)).collect();
    assert_eq!(mutes["silent"].as_deref(), Some("Silence"));
    assert_eq!(mutes["small"].as_deref(), Some("Inhibition"));

    let night = SLACKLESS.replace("{receiver: chat}", "{receiver: chat, muteTimeIntervals: [now]}")
        + "timeIntervals: [{name: now, times: [{start: '00:00', end: '01:00'}]}]\n";
    let mut world = World::new(&night);
    world.set("demo", "queue_size", 950.0);
    world.run(3_000);
    assert_eq!(world.sent(), [] as [&str; 0], "the world begins at midnight");
    world.run(1_000);
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn levels_are_told_one_after_the_other_and_all_of_them_of_the_end() {
    let mut world = World::new(
        &SLACKLESS
            .replace("{receiver: chat}", "{receiver: chat, escalateAfter: 10m, escalateTo: [lead, boss]}")
            .replace(
                "[{name: chat, log: {}}]",
                "[{name: chat, log: {}}, {name: lead, log: {}}, {name: boss, log: {}}]",
            ),
    );
    world.set("demo", "queue_size", 950.0);
    world.run(690);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on demo", "lead [FIRING] Critical: lag on demo (level 2)"]);
    world.run(600);
    assert_eq!(world.sent()[2..], ["boss [FIRING] Critical: lag on demo (level 3)"]);
    world.set("demo", "queue_size", 0.0);
    world.run(360);
    let ends: BTreeSet<&str> = world.sent()[3..].iter().copied().collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert!(ends.iter().all(|end| end.contains("RESOLVED")));
}

#[test]
fn the_same_is_not_told_twice_within_an_hour() {
    let mut world =
        World::new(&SLACKLESS.replace("{name: chat, log: {}}", "{name: chat, sendResolved: false, log: {}}"));
    for _ in 0..6 {
        world.set("demo", "queue_size", 950.0);
        world.run(420);
        world.set("demo", "queue_size", 0.0);
        world.run(420);
    }
    assert_eq!(world.sent().len(), 2, "{:?}", world.sent());
    let mut world = World::new(SLACKLESS);
    for _ in 0..2 {
        world.set("demo", "queue_size", 950.0);
        world.run(420);
        world.set("demo", "queue_size", 0.0);
        world.run(420);
    }
    assert_eq!(world.sent().len(), 4, "what has ended is news when it begins again: {:?}", world.sent());
}

#[test]
fn a_receiver_that_fails_is_tried_until_it_takes_the_message() {
    let mut world = World::new(SLACKLESS);
    world.set("demo", "queue_size", 950.0);
    world.answer = Err(SendError::transient(FailureKind::ServerError, "the receiver answered 500"));
    world.run(240);
    assert!(world.attempts > 5, "{}", world.attempts);
    let facts = world.facts();
    assert_eq!(facts["ReceiversHealthy"], (false, "chat: the receiver answered 500".to_owned()));
    world.answer = Ok(());
    world.run(360);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on demo"]);
    assert!(world.facts()["ReceiversHealthy"].0);
}

#[test]
fn a_message_that_was_refused_for_good_is_made_anew() {
    let mut world = World::new(SLACKLESS);
    world.set("demo", "queue_size", 950.0);
    world.answer = Err(SendError::permanent(FailureKind::AuthError, "the receiver answered 403"));
    world.run(120);
    assert_eq!(world.attempts, 1);
    world.answer = Ok(());
    world.run(300);
    assert_eq!(world.sent(), ["chat [FIRING] Critical: lag on demo"]);
}

#[test]
fn a_dry_run_tells_and_does_nothing_and_says_what_it_would() {
    let mut world = World::new(&format!("mode: DryRun\n{}", acting("")));
    world.set("demo", "queue_size", 950.0);
    world.run(120);
    assert_eq!((world.attempts, world.runs.len()), (0, 0));
    let notes: Vec<&str> = world.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(notes.iter().any(|note| note.starts_with("would tell chat: [FIRING] Critical: lag on demo")), "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with("would run restart (RestartComponent) for lag")), "{notes:?}");
    world.change(&acting(""));
    world.run(60);
    assert_eq!((world.sent().len(), world.runs.len()), (1, 1), "in earnest it begins anew");
}

fn acting(fields: &str) -> String {
    SLACKLESS.replace("severity: Critical", "severity: Critical\n    actions: [restart, suspend]")
        + &format!(
            "actions:\n  - {{name: restart, type: RestartComponent, component: Worker{fields}}}\n  - {{name: suspend, type: Suspend, maxRetries: 1}}\n"
        )
}

fn ran(world: &World) -> Vec<(i64, String)> {
    world.runs.iter().map(|(at, run)| (*at, format!("{} {}", run.spec.name, run.target))).collect()
}

#[test]
fn actions_run_in_turn_with_rests_until_they_are_exhausted() {
    let mut world = World::new(&acting(", maxRetries: 2"));
    world.set("demo", "queue_size", 950.0);
    world.run(2_400);
    let step = |at: i64, what: &str| (at, what.to_owned());
    assert_eq!(ran(&world), [step(30, "restart demo"), step(630, "restart demo"), step(1_230, "suspend demo")]);
    assert_eq!(world.facts()["RemediationExhausted"], (true, "actions didn't help: lag on demo".to_owned()));
    let told =
        world.messages.iter().any(|message| message.alerts[0].remediation.contains("suspend: run 1 of 1, exhausted"));
    assert!(told, "whoever was told of the alert is told that nothing helped");
    world.set("demo", "queue_size", 0.0);
    world.run(3_700);
    world.set("demo", "queue_size", 950.0);
    world.run(90);
    assert_eq!(ran(&world)[3..].len(), 1, "an hour of health, and it begins anew");
}

#[test]
fn a_run_that_failed_is_tried_again_sooner_and_one_that_got_lost_counts() {
    let mut world = World::new(&acting(", maxRetries: 3"));
    world.set("demo", "queue_size", 950.0);
    world.outcome = Some(Err("conflict".to_owned()));
    world.run(200);
    assert_eq!(ran(&world).len(), 2, "after two minutes");
    assert_eq!(world.status().actions[0].last_outcome.as_deref(), Some("Failed: conflict"));
    let mut world = World::new(&acting(", maxRetries: 3"));
    world.set("demo", "queue_size", 950.0);
    world.outcome = None;
    world.run(700);
    assert_eq!(ran(&world).len(), 1);
    world.run(100);
    assert_eq!(ran(&world).len(), 2, "ten minutes until it counts as lost, two until it is tried again");
}

#[test]
fn actions_wait_for_upgrades_approval_and_each_other() {
    let mut world = World::new(&acting(", approval: Manual, maxAffected: '1'"));
    for name in ["a", "b"] {
        world.set(name, "queue_size", 950.0);
        world.targets.get_mut(name).unwrap().replicas.insert(hebb_api::Component::Worker, 10);
    }
    world.targets.get_mut("a").unwrap().phases.insert(Phase::Upgrade);
    world.run(300);
    assert_eq!(ran(&world), []);
    let held = world.notes.iter().filter(|note| note.reason == "ActionHeld").count();
    assert_eq!(held, 2, "each is said once: {:?}", world.notes);
    for target in world.targets.values_mut() {
        target.approved.insert("restart".to_owned());
        target.phases.clear();
    }
    world.run(15);
    assert_eq!(ran(&world).len(), 1, "one at a time");
    assert!(world.runs[0].1.uses_approval);
    assert_eq!(world.runs[0].1.pods, Some(1));
    world.run(2_000);
    assert_eq!(ran(&world).len(), 2, "an approval is for one run: {:?}", ran(&world));
}

#[test]
fn a_policy_that_only_notifies_does_nothing() {
    let mut world = World::new(&format!("mode: NotifyOnly\n{}", acting("")));
    world.set("demo", "queue_size", 950.0);
    world.run(600);
    assert_eq!((world.sent().len(), world.runs.len()), (1, 0));
}

#[test]
fn a_record_with_the_most_of_everything_can_be_stored() {
    let rules: String = (0..64)
        .map(|rule| {
            format!(
                "  - {{name: {}{rule:02}, expr: {{indicator: queue_size, operator: GreaterThan, threshold: 1}}, labels: {{{}}}, annotations: {{summary: {s}, description: {s}, runbookUrl: {s}}}}}\n",
                "r".repeat(61),
                (0..8).map(|label| format!("{}{label}: {}", "l".repeat(40), "v".repeat(63))).collect::<Vec<_>>().join(", "),
                s = "s".repeat(500),
            )
        })
        .collect();
    let spec = format!(
        "targetSelector: {{matchLabels: {{a: b}}}}\nrules:\n{rules}routes:\n  - {{receiver: a, groupBy: ['...'], continue: true}}\n  - {{receiver: b, groupBy: ['...'], escalateAfter: 1m, escalateTo: [a]}}\nreceivers: [{{name: a, log: {{}}}}, {{name: b, log: {{}}}}]\n"
    );
    let mut world = World::new(&spec);
    world.answer = Err(SendError::transient(FailureKind::Connect, "x".repeat(999)));
    for target in 0..4 {
        world.set(&format!("{}{target}", "t".repeat(252)), "queue_size", 950.0);
    }
    world.run(600);
    let bytes = world.record.to_json().unwrap().len();
    assert!(bytes < hebb_alert::RECORD_BYTES_MAX, "{bytes}");
    assert_eq!(world.record.alerts.len(), hebb_alert::ALERTS_MAX);
    assert_eq!(world.record.outbox.len(), hebb_alert::OUTBOX_MAX);
    assert!(world.record.left_out > 0 && !world.facts()["Ready"].0);
}

/// What may happen in between two evaluations.
#[derive(Clone, Debug)]
enum Event {
    Value(u8, Option<f64>),
    Gone(u8),
    Phase(u8, bool),
    Approve(u8),
    Answer(u8),
    Outcome(u8),
    Wait(i64),
    /// The process dies: what wasn't stored is lost, and so is the history.
    Crash(Death),
}

fn event() -> impl Strategy<Value = Event> {
    let value = prop_oneof![Just(Some(950.0)), Just(Some(1.0)), Just(None)];
    prop_oneof![
        4 => (0u8..3, value).prop_map(|(target, value)| Event::Value(target, value)),
        1 => (0u8..3).prop_map(Event::Gone),
        1 => (0u8..3, any::<bool>()).prop_map(|(target, on)| Event::Phase(target, on)),
        1 => (0u8..3).prop_map(Event::Approve),
        2 => (0u8..4).prop_map(Event::Answer),
        2 => (0u8..3).prop_map(Event::Outcome),
        6 => (1i64..900).prop_map(Event::Wait),
        1 => (-4_000i64..0).prop_map(Event::Wait),
        2 => prop_oneof![Just(Death::Nowhere), Just(Death::BeforeDoing), Just(Death::AfterDoing)].prop_map(Event::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    /// Planning on its own result gives nothing new, in every state that a policy gets into; and no cap is ever exceeded.
    #[test]
    fn a_decision_settles_and_caps_hold(events in proptest::collection::vec(event(), 1..60)) {
        let mut world = World::new(&acting(", maxRetries: 2, maxAffected: '1', cooldown: 10m, approval: Manual"));
        for event in events {
            let name = |target: u8| format!("t{target}");
            match event {
                Event::Value(target, value) => world.put(&name(target), "queue_size", value),
                Event::Gone(target) => { world.targets.remove(&name(target)); }
                Event::Phase(target, on) => if let Some(target) = world.targets.get_mut(&name(target)) {
                    if on { target.phases.insert(Phase::Upgrade); } else { target.phases.clear(); }
                },
                Event::Approve(target) => if let Some(target) = world.targets.get_mut(&name(target)) {
                    target.approved.insert("restart".to_owned());
                },
                Event::Answer(answer) => world.answer = match answer {
                    0 => Err(SendError::transient(FailureKind::Timeout, "slow")),
                    1 => Err(SendError::permanent(FailureKind::ClientError, "bad")),
                    _ => Ok(()),
                },
                Event::Outcome(outcome) => world.outcome = match outcome {
                    0 => None,
                    1 => Some(Err("no".to_owned())),
                    _ => Some(Ok(())),
                },
                // Real time passes when the clock is put back as well, but little of it.
                Event::Wait(seconds) => { world.now += seconds; world.real += seconds.max(1); }
                Event::Crash(Death::Nowhere) => world.crash(),
                Event::Crash(death) => world.death = death,
            }
            let runs = world.runs.len();
            world.step();
            let again = world.again.take().unwrap();
            prop_assert_eq!(&again.record, &world.decided, "its own result changes");
            prop_assert!(again.sends.is_empty() && again.runs.is_empty() && again.notes.is_empty());
            let json = world.record.to_json().unwrap();
            prop_assert_eq!(&Record::from_json(&json).unwrap(), &world.record);
            for (at, run) in &world.runs[runs..] {
                let target = &world.targets[&run.target];
                prop_assert!(!target.phases.contains(&Phase::Upgrade), "an upgraded target is left alone");
                prop_assert!(run.attempt <= u32::try_from(run.spec.max_retries).unwrap());
                prop_assert!(run.spec.name != "restart" || target.approved.contains("restart"), "somebody agreed");
                for (former_at, former) in &world.runs[..runs] {
                    if former.spec.name == run.spec.name && former.target == run.target {
                        prop_assert!(at - former_at >= 120, "it rests, whatever the clock says");
                    }
                }
            }
            let at_work = world.record.actions.values().filter(|log| log.action == "restart" && log.run.is_some());
            prop_assert!(at_work.count() <= 1, "one target at a time");
            prop_assert!(world.record.actions.values().all(|log| log.attempts <= 2));
            let ids: BTreeSet<&str> = world.runs.iter().map(|(_, run)| run.id.as_str()).collect();
            prop_assert_eq!(ids.len(), world.runs.len(), "no run happens twice");
        }
    }

    /// Whatever fails in between, in the end everybody knows what fires and what has ended: nothing is missed.
    #[test]
    fn in_the_end_everybody_knows(events in proptest::collection::vec(event(), 1..40), fires in any::<bool>()) {
        let mut world = World::new(SLACKLESS);
        let mut deaths = 0;
        for event in events {
            match event {
                Event::Value(target, value) => world.put(&format!("t{target}"), "queue_size", value),
                Event::Answer(answer) => world.answer = match answer {
                    0 => Err(SendError::transient(FailureKind::Timeout, "slow")),
                    1 => Err(SendError::permanent(FailureKind::ClientError, "bad")),
                    _ => Ok(()),
                },
                Event::Wait(seconds) => world.now += seconds.max(1),
                Event::Crash(Death::AfterDoing) => { deaths += 1; world.death = Death::AfterDoing; }
                Event::Crash(Death::Nowhere) => world.crash(),
                Event::Crash(death) => world.death = death,
                _ => {}
            }
            world.step();
        }
        world.answer = Ok(());
        world.set("t0", "queue_size", if fires { 950.0 } else { 1.0 });
        world.run(3_600);
        // What the receiver believes, from the messages that it took.
        let mut believes = false;
        for message in &world.messages {
            for alert in message.alerts.iter().filter(|alert| alert.target == "t0") {
                believes = alert.status == Standing::Firing;
            }
        }
        prop_assert_eq!(believes, fires);
        let keys: BTreeSet<&str> = world.messages.iter().map(|message| message.idempotency_key.as_str()).collect();
        prop_assert!(world.messages.len() <= keys.len() + deaths, "twice only where an answer was lost");
    }
}
