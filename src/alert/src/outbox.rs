//! Messages on their way: recorded before they are sent, and struck out after the receiver took them. So each arrives at least
//! once; it arrives twice only when the answer was lost, and then under the same key.
//!
//! The caller stores the record, sends what is due, and stores the record again with what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use hebb_api::Receiver;
use jiff::Timestamp;

use crate::message::Message;
use crate::record::{Intent, OUTBOX_MAX, Record};
use crate::retry::{Breaker, Deliveries, SendError, delay};
use crate::time::{after, elapsed, reached};

/// A message that couldn't be delivered for so long is given up: what is worth telling by then is decided on anew.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long after its deadline a delivery counts as lost: the one who was at it has died.
const LEASE_SLACK: Duration = Duration::from_secs(5);
/// Longer than any wait between two attempts and than any attempt.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// What has been told in all groups together, so that the record stays small.
const TOLD_MAX: usize = 8_192;

/// A message to be sent now.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What [`receipt`] wants back.
    pub key: String,
    /// Name of the receiver.
    pub receiver: String,
    /// How long it may take.
    pub deadline: Duration,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What is sent.
    pub message: Message,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The receiver took it.
    Delivered,
    /// It is tried again.
    Deferred,
    /// It isn't tried again; the group decides anew what it has to tell.
    Abandoned,
    /// Nobody knows this message: it was settled before.
    Unknown,
}

/// Whether another message may be decided on.
pub(crate) fn has_room(record: &Record) -> bool {
    let told: usize = record.groups.values().flat_map(|group| group.told.values()).map(|told| told.firing.len()).sum();
    record.outbox.len() < OUTBOX_MAX && told < TOLD_MAX
}

/// Gives up messages to receivers that are gone and those of long ago; their groups decide anew what they have to tell.
pub(crate) fn expire(record: &mut Record, receivers: &[Receiver], now: Timestamp) {
    let (kept, given_up): (Vec<Intent>, Vec<Intent>) =
        std::mem::take(&mut record.outbox).into_iter().partition(|intent| {
            let known = receivers.iter().any(|receiver| receiver.name == intent.receiver);
            let old = intent.attempts > 0 && AGE_MAX < elapsed(now, intent.created_at) && !is_leased(intent, now);
            known && !old
        });
    record.outbox = kept;
    for intent in given_up {
        take_back(record, &intent);
    }
}

/// Takes the messages that are due and marks them as being sent, so that nobody else takes them until their time is up.
pub fn take_due(record: &mut Record, receivers: &[Receiver], now: Timestamp) -> Vec<Delivery> {
    let mut due = Vec::new();
    // A receiver that is tried after a pause gets one message at a time.
    let mut tried: BTreeSet<String> = BTreeSet::new();
    for intent in record.outbox.iter().filter(|intent| is_leased(intent, now)) {
        tried.insert(intent.receiver.clone());
    }
    for intent in &mut record.outbox {
        let Some(receiver) = receivers.iter().find(|receiver| receiver.name == intent.receiver) else { continue };
        let deliveries = record.deliveries.get(&receiver.name);
        let ready = deliveries.is_none_or(|deliveries| deliveries.is_ready(now));
        if !ready || !reached(intent.next_at, now, WAIT_MAX) || is_leased(intent, now) {
            continue;
        }
        if deliveries.is_some_and(is_on_trial) && tried.contains(&receiver.name) {
            continue;
        }
        tried.insert(receiver.name.clone());
        intent.leased_until = Some(after(now, receiver.timeout.0 + LEASE_SLACK));
        due.push(Delivery {
            key: intent.key.clone(),
            receiver: receiver.name.clone(),
            deadline: receiver.timeout.0,
            attempt: intent.attempts.saturating_add(1),
            message: intent.message.clone(),
        });
    }
    due
}

/// When [`take_due`] finds a message next, unless a receipt comes first; nothing where none waits.
pub(crate) fn next_attempt(record: &Record, now: Timestamp) -> Option<Timestamp> {
    let leased = record.outbox.iter().filter(|intent| is_leased(intent, now));
    let busy: BTreeSet<&str> = leased.map(|intent| intent.receiver.as_str()).collect();
    let attempts = record.outbox.iter().filter_map(|intent| {
        if is_leased(intent, now) {
            return intent.leased_until;
        }
        let Some(deliveries) = record.deliveries.get(&intent.receiver) else { return Some(intent.next_at) };
        // Its turn comes with what becomes of the one that is on its way.
        let waits = is_on_trial(deliveries) && busy.contains(intent.receiver.as_str());
        (!waits).then(|| deliveries.ready_at().map_or(intent.next_at, |ready| ready.max(intent.next_at)))
    });
    attempts.min()
}

/// Whether a receiver is tried by one message at a time.
fn is_on_trial(deliveries: &Deliveries) -> bool {
    deliveries.breaker != Breaker::Closed
}

fn is_leased(intent: &Intent, now: Timestamp) -> bool {
    intent.leased_until.is_some_and(|until| !reached(until, now, WAIT_MAX))
}

fn remove(record: &mut Record, key: &str) -> Option<Intent> {
    let place = record.outbox.iter().position(|intent| intent.key == key)?;
    Some(record.outbox.remove(place))
}

/// Takes note of what came of an attempt.
pub fn receipt(record: &mut Record, key: &str, outcome: Result<(), &SendError>, now: Timestamp) -> Receipt {
    let Some(mut intent) = remove(record, key) else { return Receipt::Unknown };
    let deliveries = record.deliveries.entry(intent.receiver.clone()).or_default();
    let Err(error) = outcome else {
        deliveries.succeed(intent.failing_since, now);
        return Receipt::Delivered;
    };
    deliveries.fail(error, now);
    if !error.transient {
        take_back(record, &intent);
        return Receipt::Abandoned;
    }
    intent.attempts = intent.attempts.saturating_add(1);
    intent.failing_since.get_or_insert(now);
    intent.leased_until = None;
    intent.next_at = after(now, delay(deliveries.base(), intent.attempts, &intent.key));
    // Order is kept: what was decided on first is tried first.
    let place = record.outbox.iter().position(|other| intent.created_at < other.created_at);
    record.outbox.insert(place.unwrap_or(record.outbox.len()), intent);
    Receipt::Deferred
}

/// The receiver hasn't been told after all.
fn take_back(record: &mut Record, intent: &Intent) {
    if let Some(dedup) = &intent.dedup {
        record.dedup.remove(dedup);
    }
    let Some(group) = record.groups.get_mut(&intent.group) else { return };
    match &intent.before {
        Some(before) => group.told.insert(intent.receiver.clone(), before.clone()),
        None => group.told.remove(&intent.receiver),
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Group, Told};
    use crate::retry::FailureKind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn told(fingerprint: &str) -> Told {
        Told { at: at(0), firing: [fingerprint.to_owned()].into(), exhausted: BTreeSet::new() }
    }

    fn intent(key: &str, receiver: &str) -> Intent {
        Intent {
            key: key.to_owned(),
            group: "g".to_owned(),
            receiver: receiver.to_owned(),
            created_at: at(0),
            message: Message::test("p", at(0)),
            attempts: 0,
            next_at: at(0),
            leased_until: None,
            failing_since: None,
            before: None,
            dedup: None,
        }
    }

    fn receivers() -> Vec<Receiver> {
        ["a", "b"].map(|name| Receiver { name: name.to_owned(), ..Receiver::default() }).to_vec()
    }

    fn record(intents: &[Intent]) -> Record {
        let told = intents.iter().map(|intent| (intent.receiver.clone(), told("x"))).collect();
        let group = Group {
            route: "r".to_owned(),
            labels: BTreeMap::new(),
            created_at: at(0),
            next_at: at(0),
            firing_since: None,
            told,
            messages: 1,
        };
        Record { groups: [("g".to_owned(), group)].into(), outbox: intents.to_vec(), ..Record::default() }
    }

    fn keys(due: &[Delivery]) -> Vec<&str> {
        due.iter().map(|delivery| delivery.key.as_str()).collect()
    }

    #[test]
    fn a_message_is_taken_once_and_again_after_its_taker_died() {
        let mut record = record(&[intent("1", "a")]);
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(0))), ["1"]);
        assert_eq!(take_due(&mut record, &receivers(), at(14)), []);
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(15))), ["1"]);
        assert_eq!(receipt(&mut record, "1", Ok(()), at(16)), Receipt::Delivered);
        assert_eq!(receipt(&mut record, "1", Ok(()), at(17)), Receipt::Unknown);
        assert_eq!(take_due(&mut record, &receivers(), at(999)), []);
        assert_eq!(record.deliveries["a"].succeeded, 1);
    }

    #[test]
    fn a_transient_failure_is_tried_again_and_one_for_good_is_taken_back() {
        let mut record = record(&[intent("1", "a")]);
        take_due(&mut record, &receivers(), at(0));
        let error = SendError::transient(FailureKind::ServerError, "500");
        assert_eq!(receipt(&mut record, "1", Err(&error), at(1)), Receipt::Deferred);
        assert_eq!(take_due(&mut record, &receivers(), at(1)), []);
        let again = take_due(&mut record, &receivers(), at(4));
        assert_eq!((again[0].key.as_str(), again[0].attempt), ("1", 2));
        let error = SendError::permanent(FailureKind::AuthError, "403");
        assert_eq!(receipt(&mut record, "1", Err(&error), at(4)), Receipt::Abandoned);
        assert_eq!(record.groups["g"].told.get("a"), None, "the group has it to tell again");
        assert!(!record.deliveries["a"].is_healthy());
    }

    #[test]
    fn what_was_told_before_is_what_is_taken_back_to() {
        let before = told("earlier");
        let mut record = record(&[Intent { before: Some(before.clone()), ..intent("1", "a") }]);
        let error = SendError::permanent(FailureKind::ClientError, "400");
        receipt(&mut record, "1", Err(&error), at(1));
        assert_eq!(record.groups["g"].told["a"], before);
    }

    #[test]
    fn a_receiver_in_trouble_gets_one_message_at_a_time() {
        let mut record = record(&[intent("1", "a"), intent("2", "a"), intent("3", "b")]);
        record.deliveries.entry("a".to_owned()).or_default().breaker = Breaker::Open { until: at(30), times: 1 };
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(0))), ["3"]);
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(30))), ["1", "3"]);
        receipt(&mut record, "1", Ok(()), at(31));
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(31))), ["2"]);
    }

    #[test]
    fn a_receiver_that_is_spared_is_due_when_something_may_be_sent_to_it() {
        let mut record = record(&[intent("1", "a"), intent("2", "a")]);
        record.groups.clear();
        let due = |record: &Record, second| record.next_due(at(second)).map(|wait| wait.as_secs());
        assert_eq!(due(&record, 0), Some(0));
        record.deliveries.entry("a".to_owned()).or_default().breaker = Breaker::Open { until: at(30), times: 1 };
        assert_eq!(take_due(&mut record, &receivers(), at(1)), []);
        assert_eq!(due(&record, 1), Some(29));
        // The second has to wait for the first, which has 15 s.
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(30))), ["1"]);
        assert_eq!(due(&record, 31), Some(14));
        let mut error = SendError::transient(FailureKind::RateLimited, "429");
        error.retry_after = Some(Duration::from_secs(600));
        receipt(&mut record, "1", Err(&error), at(32));
        assert_eq!(due(&record, 32), Some(600));
        receipt(&mut record, "1", Ok(()), at(40));
        assert_eq!(due(&record, 40), Some(0));
    }

    #[test]
    fn a_message_of_long_ago_and_one_to_nobody_are_decided_on_anew() {
        let mut record = record(&[Intent { attempts: 9, ..intent("1", "a") }, intent("2", "gone")]);
        expire(&mut record, &receivers(), at(86_400));
        assert_eq!(record.outbox.len(), 1);
        expire(&mut record, &receivers(), at(86_401));
        assert_eq!(record.outbox, []);
        assert!(record.groups["g"].told.is_empty());
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_hold_messages_for_long() {
        let hour = at(3_600);
        let mut record = record(&[
            Intent { next_at: hour, ..intent("1", "a") },
            Intent { leased_until: Some(hour), ..intent("2", "a") },
        ]);
        record.deliveries.entry("a".to_owned()).or_default().breaker = Breaker::Open { until: hour, times: 0 };
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(0))), ["1"]);
        receipt(&mut record, "1", Ok(()), at(1));
        assert_eq!(keys(&take_due(&mut record, &receivers(), at(1))), ["2"]);
    }

    /// What a receiver does, and where the sender dies.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Takes,
        Refuses,
        TakesButTheAnswerIsLost,
        SenderDiesBeforeSending,
        SenderDiesAfterSending,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Takes),
            Just(Step::Refuses),
            Just(Step::TakesButTheAnswerIsLost),
            Just(Step::SenderDiesBeforeSending),
            Just(Step::SenderDiesAfterSending),
        ]
    }

    proptest! {
        #[test]
        fn every_message_arrives_and_twice_only_if_an_answer_was_lost(
            steps in proptest::collection::vec(step(), 0..12), waits in proptest::collection::vec(0i64..100, 60),
        ) {
            let mut stored = record(&[intent("1", "a"), intent("2", "a"), intent("3", "b")]).to_json().unwrap();
            let mut arrived: BTreeMap<String, u32> = BTreeMap::new();
            let mut lost: BTreeMap<String, u32> = BTreeMap::new();
            let mut steps = steps.into_iter();
            let mut now = 0;
            for wait in waits {
                now += wait;
                let mut record = Record::from_json(&stored).unwrap();
                let due = take_due(&mut record, &receivers(), at(now));
                prop_assert_eq!(take_due(&mut record, &receivers(), at(now)), vec![], "nothing is taken twice");
                stored = record.to_json().unwrap();
                for delivery in due {
                    let step = steps.next().unwrap_or(Step::Takes);
                    let takes = !matches!(step, Step::Refuses | Step::SenderDiesBeforeSending);
                    *arrived.entry(delivery.key.clone()).or_default() += u32::from(takes);
                    if takes && !matches!(step, Step::Takes) {
                        *lost.entry(delivery.key.clone()).or_default() += 1;
                    }
                    let error = SendError::transient(FailureKind::AnswerLost, "reset");
                    match step {
                        Step::Takes => { receipt(&mut record, &delivery.key, Ok(()), at(now)); }
                        Step::Refuses | Step::TakesButTheAnswerIsLost => {
                            receipt(&mut record, &delivery.key, Err(&error), at(now));
                        }
                        // What was stored last is what the next one finds.
                        Step::SenderDiesBeforeSending | Step::SenderDiesAfterSending => break,
                    }
                    stored = record.to_json().unwrap();
                }
            }
            if now > 1_200 {
                prop_assert!(Record::from_json(&stored).unwrap().outbox.is_empty(), "nothing waits for ever");
                for key in ["1", "2", "3"] {
                    let arrived = arrived.get(key).copied().unwrap_or(0);
                    prop_assert_eq!(arrived, 1 + lost.get(key).copied().unwrap_or(0), "message {}", key);
                }
            }
        }
    }
}
