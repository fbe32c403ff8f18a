//! Alertmanager's own tool says where its routes lead; ours must lead to the same receivers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::process::{Command, Stdio};

use hebb_alert::{Labels, Policy, alertmanager};
use hebb_api::{AlertPolicySpec, MatchType, Matcher, Receiver, Route};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const NAMES: [&str; 3] = ["severity", "cluster", "team"];
const VALUES: [&str; 5] = ["", "a", "b", "ab", "a.b"];
const EXPRESSIONS: [&str; 6] = ["", "a", "a|b", "a.*", ".+", "[ab]+"];
const RECEIVERS: [&str; 4] = ["r0", "r1", "r2", "r3"];

fn matcher() -> impl Strategy<Value = Matcher> {
    let types = [MatchType::Equal, MatchType::NotEqual, MatchType::Matches, MatchType::MatchesNot];
    (0..NAMES.len(), 0..types.len(), 0..5usize).prop_map(move |(name, match_type, value)| {
        let match_type = types[match_type];
        let value = match match_type {
            MatchType::Equal | MatchType::NotEqual => VALUES[value],
            MatchType::Matches | MatchType::MatchesNot => EXPRESSIONS[value],
        };
        Matcher { name: NAMES[name].to_owned(), value: value.to_owned(), match_type }
    })
}

fn route() -> impl Strategy<Value = Route> {
    (prop::collection::vec(matcher(), 0..3), 0..RECEIVERS.len(), any::<bool>()).prop_map(
        |(matchers, receiver, continue_)| Route {
            matchers,
            receiver: RECEIVERS[receiver].to_owned(),
            continue_,
            ..Route::default()
        },
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(
        (0..NAMES.len()).prop_map(|i| NAMES[i].to_owned()),
        (1..5usize).prop_map(|i| VALUES[i].to_owned()),
        0..4,
    )
}

fn base() -> AlertPolicySpec {
    serde_yaml::from_str(
        "{targetRef: {name: d}, rules: [{name: r, absence: {indicator: up}}], inhibitRules: [{sourceMatchers: [{name: a, value: b}], targetMatchers: [{name: c, matchType: '!~', value: 'd\"e'}], equal: [cluster]}], timeIntervals: [{name: n, location: Europe/Berlin, weekdays: [Monday], times: [{start: '09:00', end: '24:00'}]}]}",
    )
    .unwrap()
}

#[test]
fn routes_lead_where_alertmanager_leads() {
    let found = Command::new("amtool").arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok_and(|status| status.success()), "this test needs amtool: e2e/cluster/packages.sh alert");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alertmanager.yaml");
    let mut runner = TestRunner::deterministic();
    let (mut told, mut nobody) = (0, 0);
    for _ in 0..40 {
        let mut spec = base();
        spec.routes = prop::collection::vec(route(), 1..8).new_tree(&mut runner).unwrap().current();
        spec.receivers = RECEIVERS
            .map(|name| Receiver { name: name.to_owned(), log: Some(Default::default()), ..Default::default() })
            .to_vec();
        let policy = Policy::new("default", "p", &spec).unwrap();
        std::fs::write(&file, alertmanager::config(&spec)).unwrap();
        for _ in 0..5 {
            let labels = labels().new_tree(&mut runner).unwrap().current();
            let output = Command::new("amtool")
                .args(["config", "routes", "test", "--config.file"])
                .arg(&file)
                .args(labels.iter().map(|(name, value)| format!("{name}={value}")))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).unwrap();
            let explained = policy.explain(&labels, Timestamp::UNIX_EPOCH);
            let ours = explained.lines().find_map(|line| line.strip_prefix("told: ")).unwrap();
            let ours = if ours.starts_with("nobody") { "nobody".to_owned() } else { ours.replace(", ", ",") };
            assert_eq!(ours, theirs.trim(), "{labels:?} in\n{}\n{explained}", alertmanager::config(&spec));
            if ours == "nobody" { nobody += 1 } else { told += 1 }
        }
    }
    assert!(told > 50 && nobody > 10, "{told} told, {nobody} not: both must be tried");
}
