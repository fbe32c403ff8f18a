//! A policy, its targets and its receivers, with a clock that the test moves.

use std::collections::BTreeMap;

use hebb_alert::{Decision, History, Message, Note, Observation, Policy, Record, Run, SendError, Target};
use hebb_api::AlertPolicySpec;
use jiff::Timestamp;

/// A midnight, as the clock's beginning.
const BEGIN: i64 = 1_767_225_600;
/// The policies' interval, in seconds.
const INTERVAL: usize = 15;

/// Where the process dies in the course of one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Death {
    #[default]
    Nowhere,
    /// The decision is stored, and nothing is done.
    BeforeDoing,
    /// Everything is done, and nobody takes note of what came of it.
    AfterDoing,
}

pub struct World {
    policy: Policy,
    history: History,
    /// What is stored.
    pub record: Record,
    /// What the last evaluation decided on, before anything was sent.
    pub decided: Record,
    last: Option<Decision>,
    /// The same evaluation on its own result.
    pub again: Option<Decision>,
    pub targets: BTreeMap<String, Target>,
    /// Seconds since the beginning, by the clock.
    pub now: i64,
    /// The same, by time itself.
    pub real: i64,
    /// What receivers answer.
    pub answer: Result<(), SendError>,
    /// How runs go; nobody says where there is nothing.
    pub outcome: Option<Result<(), String>>,
    /// The messages that receivers took.
    pub messages: Vec<Message>,
    headlines: Vec<String>,
    pub attempts: usize,
    /// Where the process dies next.
    pub death: Death,
    pub runs: Vec<(i64, Run)>,
    pub notes: Vec<Note>,
}

impl World {
    pub fn new(spec: &str) -> Self {
        let policy = policy(spec);
        Self {
            history: policy.history(),
            policy,
            record: Record::default(),
            decided: Record::default(),
            last: None,
            again: None,
            targets: BTreeMap::new(),
            now: 0,
            real: 0,
            answer: Ok(()),
            outcome: Some(Ok(())),
            messages: Vec::new(),
            headlines: Vec::new(),
            attempts: 0,
            death: Death::Nowhere,
            runs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Somebody edits the policy.
    pub fn change(&mut self, spec: &str) {
        self.policy = policy(spec);
        let mut history = self.policy.history();
        history.inherit(std::mem::take(&mut self.history));
        self.history = history;
    }

    /// The process ends and another begins with what is stored.
    pub fn crash(&mut self) {
        self.record = Record::from_json(&self.record.to_json().unwrap()).unwrap();
        self.history = self.policy.history();
    }

    pub fn set(&mut self, target: &str, indicator: &str, value: f64) {
        self.put(target, indicator, Some(value));
    }

    pub fn put(&mut self, target: &str, indicator: &str, value: Option<f64>) {
        let samples = &mut self.targets.entry(target.to_owned()).or_default().samples;
        match value {
            Some(value) => samples.insert(indicator.to_owned(), value),
            None => samples.remove(indicator),
        };
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(BEGIN + self.now).unwrap()
    }

    /// Evaluates from now on for so many seconds, every interval.
    pub fn run(&mut self, seconds: i64) {
        let end = self.now + seconds;
        while self.now < end {
            self.step();
            self.now += INTERVAL as i64;
            self.real += INTERVAL as i64;
        }
    }

    /// One evaluation, and what follows from it.
    pub fn step(&mut self) {
        let now = self.time();
        let seen = Observation { now, targets: self.targets.clone() };
        let decision = hebb_alert::evaluate(&self.policy, &mut self.history, self.record.clone(), &seen);
        self.again = Some(hebb_alert::evaluate(&self.policy, &mut self.history, decision.record.clone(), &seen));
        // What is to be done is stored before it is done.
        self.record = decision.record.clone();
        self.decided = decision.record.clone();
        self.notes.extend(decision.notes.clone());
        let death = std::mem::take(&mut self.death);
        let (sends, runs) = match death {
            Death::BeforeDoing => (&[] as &[_], &[] as &[_]),
            Death::Nowhere | Death::AfterDoing => (decision.sends.as_slice(), decision.runs.as_slice()),
        };
        for delivery in sends {
            self.attempts += 1;
            if self.answer.is_ok() {
                self.messages.push(delivery.message.clone());
                self.headlines.push(format!("{} {}", delivery.receiver, delivery.message.headline()));
            }
            if death == Death::AfterDoing {
                continue;
            }
            let outcome = self.answer.as_ref().copied();
            hebb_alert::receipt(&mut self.record, &delivery.key, outcome, now);
        }
        for run in runs {
            self.runs.push((self.real, run.clone()));
            if let Some(outcome) = self.outcome.clone().filter(|_| death == Death::Nowhere) {
                assert!(hebb_alert::finish(&mut self.record, &run.id, outcome, now));
            }
        }
        self.last = Some(decision);
        if death != Death::Nowhere {
            self.crash();
        }
    }

    /// Receiver and headline of each message that was taken.
    pub fn sent(&self) -> Vec<&str> {
        self.headlines.iter().map(String::as_str).collect()
    }

    pub fn status(&self) -> hebb_api::AlertPolicyStatus {
        self.last.as_ref().unwrap().status.clone()
    }

    /// What the conditions say, by type.
    pub fn facts(&self) -> BTreeMap<&'static str, (bool, String)> {
        let facts = &self.last.as_ref().unwrap().facts;
        facts.iter().map(|fact| (fact.type_, (fact.status, fact.message.clone()))).collect()
    }
}

fn policy(spec: &str) -> Policy {
    let spec: AlertPolicySpec = serde_yaml::from_str(spec).unwrap();
    Policy::new("default", "p", &spec).unwrap()
}
