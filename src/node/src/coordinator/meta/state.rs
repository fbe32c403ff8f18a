//! What the leader remembers of meta-learning, and what follows from it. Pure: the time comes from outside.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hebb_engine::{CycleReport, Explored, Knob, MetaMetrics};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::settings::MetaLearning;

/// Cycles that are remembered: with [`ADOPTED_MAX`] adoptions each they stay far below the 1 MiB of a note.
pub const HISTORY_MAX: usize = 256;
const ADOPTED_MAX: usize = 8;
/// Arms that are counted: there are ten, and a later version of the workers may have more.
const ARMS_MAX: usize = 32;
/// A mean gain below this, over so many cycles, is a plateau.
pub const PLATEAU_DELTA: f64 = 0.01;
pub const PLATEAU_CYCLES: usize = 5;
/// Models that score this much and more have little left to gain: that they stand still is no plateau.
pub const PLATEAU_SCORE: f64 = 0.95;
/// A process larger than this is worth an alert, in bytes.
const MEMORY_MAX: u64 = 500_000_000;

/// Where the scores of a cycle come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsSource {
    /// The workers reported.
    Live,
    /// They did not: the recorded experience in their checkpoints was replayed, and nothing adopted.
    Simulated,
}

/// A change of parameters that a partition adopted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// `domain/index`.
    pub partition: String,
    /// What was changed, and what it gained.
    #[serde(flatten)]
    pub change: Explored,
}

/// What came of a candidate of the bandit so far, over all partitions and cycles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    /// What it turns.
    pub knob: Knob,
    /// By which factor.
    pub step: f64,
    /// How often it was tried.
    pub tries: u64,
    /// Mean gain in score over the parameters of then.
    pub mean_gain: f64,
    /// How often it was adopted.
    pub adopted: u64,
}

/// One cycle over all partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// When it ended.
    pub at: Timestamp,
    /// Its number.
    pub cycle: u64,
    /// Means over the partitions, weighted by experience; nothing where there is too little of it.
    pub metrics: Option<MetaMetrics>,
    /// Mean score, weighted likewise; nothing where nothing was scored.
    pub score: Option<f64>,
    /// How much the partitions gained that were scored in the cycle before with new experience as well, 0 without any.
    pub delta: f64,
    /// Experiences since the cycle before.
    pub fresh: u64,
    /// Where this comes from.
    pub metrics_source: MetricsSource,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Partitions that were heard.
    pub partitions: u64,
    /// What was adopted; the first eight.
    pub adopted: Vec<Adopted>,
}

/// What the cycles have found, and whether they go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The settings that were last taken up from the LearningCluster.
    declared: Option<MetaLearning>,
    pub continuous: bool,
    pub interval_ms: u64,
    /// 0 for no end.
    pub max_cycles: u64,
    /// Since the last start.
    pub run: u64,
    pub next_at: Option<Timestamp>,
    pub cycles: u64,
    pub total_improvements: u64,
    pub boosts: u64,
    /// Until when cycles of a plateau are forgiven: the number of the cycle at the last boost.
    boosted_at: u64,
    /// When cycles that nobody ran were taken up again.
    pub restarted_at: Option<Timestamp>,
    /// When a cycle was last given up because it hung.
    pub stuck_at: Option<Timestamp>,
    pub history: VecDeque<Cycle>,
    /// What each partition scored in the newest cycle that had new experience.
    #[serde(default)]
    scores: BTreeMap<String, f64>,
    #[serde(default)]
    pub arms: Vec<Arm>,
}

/// What a partition said, or what its checkpoint did.
pub struct Heard {
    pub partition: String,
    pub report: CycleReport,
    pub source: MetricsSource,
}

/// An alert as `GET alerts` gives it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// For example `plateau_detected`.
    pub name: &'static str,
    /// `warning` or `critical`.
    pub severity: &'static str,
    /// What is the case.
    pub message: String,
    /// What is done about it by itself.
    pub action: &'static str,
}

impl State {
    /// Takes up what the LearningCluster says where that has changed; what was started or stopped by hand stands otherwise.
    /// Also notices cycles that should have run while nobody led.
    pub fn take_up(&mut self, settings: &MetaLearning, now: Timestamp) {
        if self.declared.as_ref() != Some(settings) {
            self.declared = Some(settings.clone());
            if settings.enabled {
                self.start(settings.interval_ms, settings.max_cycles, now);
            } else {
                self.stop();
            }
        } else if self.continuous
            && self.next_at.is_some_and(|next| now.as_millisecond() > next.as_millisecond() + self.interval())
        {
            self.restarted_at = Some(now);
            self.next_at = Some(now);
        }
    }

    pub fn start(&mut self, interval_ms: u64, max_cycles: u64, now: Timestamp) {
        (self.continuous, self.interval_ms, self.max_cycles, self.run) = (true, interval_ms, max_cycles, 0);
        self.next_at = Some(self.after(now));
    }

    pub fn stop(&mut self) {
        (self.continuous, self.next_at) = (false, None);
    }

    /// Forgets what was found; whether cycles go on stands.
    pub fn reset(&mut self) {
        self.history.clear();
        self.scores.clear();
        self.arms.clear();
        (self.total_improvements, self.boosts, self.boosted_at, self.stuck_at) = (0, 0, 0, None);
        self.cycles = 0;
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.continuous && self.next_at.is_some_and(|next| next <= now)
    }

    /// Whether a cycle should have begun a minute ago.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.next_at.is_some_and(|next| now.as_millisecond() > next.as_millisecond().saturating_add(60_000))
    }

    /// Plans the cycle after one that begins, however that ends.
    pub fn went_by(&mut self, now: Timestamp) {
        self.run += 1;
        self.next_at = Some(self.after(now));
        if self.max_cycles > 0 && self.run >= self.max_cycles {
            self.stop();
        }
    }

    fn interval(&self) -> i64 {
        i64::try_from(self.interval_ms).unwrap_or(i64::MAX / 4)
    }

    fn after(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millisecond(now.as_millisecond().saturating_add(self.interval())).unwrap_or(now)
    }

    /// Takes note of a cycle.
    pub fn record(&mut self, heard: &[Heard], duration_ms: u64, now: Timestamp) -> Cycle {
        self.cycles += 1;
        let said: Vec<&Heard> = heard.iter().filter(|heard| heard.report.experiences > 0).collect();
        let fresh = heard.iter().map(|heard| heard.report.fresh).sum();
        let live = heard.iter().all(|heard| heard.source == MetricsSource::Live);
        let mut delta = 0.0;
        if fresh > 0 {
            delta = gain(&self.scores, &said);
            self.scores = said.iter().map(|heard| (heard.partition.clone(), heard.report.score)).collect();
        }
        let adoptions = heard.iter().filter(|heard| heard.source == MetricsSource::Live).filter_map(|heard| {
            let change = heard.report.adopted.clone()?;
            Some(Adopted { partition: heard.partition.clone(), change })
        });
        let mut adopted: Vec<Adopted> = adoptions.collect();
        self.total_improvements += adopted.len() as u64;
        self.count_arms(&said);
        adopted.truncate(ADOPTED_MAX);
        let cycle = Cycle {
            at: now,
            cycle: self.cycles,
            metrics: mean(&said),
            score: weighed(&said, |heard| Some(heard.report.score)),
            delta,
            fresh,
            metrics_source: if live { MetricsSource::Live } else { MetricsSource::Simulated },
            duration_ms,
            partitions: heard.len() as u64,
            adopted,
        };
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(cycle.clone());
        cycle
    }

    /// Counts what was tried where it counts: what a checkpoint's replay tried is tried again by its owner.
    fn count_arms(&mut self, said: &[&Heard]) {
        for heard in said.iter().filter(|heard| heard.source == MetricsSource::Live) {
            for tried in &heard.report.explored {
                let known = self.arms.iter().position(|arm| (arm.knob, arm.step) == (tried.knob, tried.step));
                let place = known.unwrap_or(self.arms.len());
                if place == ARMS_MAX {
                    continue;
                }
                if known.is_none() {
                    let Explored { knob, step, .. } = *tried;
                    self.arms.push(Arm { knob, step, tries: 0, mean_gain: 0.0, adopted: 0 });
                }
                let arm = &mut self.arms[place];
                arm.tries += 1;
                arm.mean_gain += (tried.gain - arm.mean_gain) / arm.tries as f64;
                arm.adopted += u64::from(heard.report.adopted.as_ref() == Some(tried));
            }
        }
    }

    /// The newest metrics there are.
    pub fn metrics(&self) -> Option<&MetaMetrics> {
        self.history.iter().rev().find_map(|cycle| cycle.metrics.as_ref())
    }

    /// Mean gain over the last cycles that had new experience; nothing before there are five.
    pub fn mean_delta(&self) -> Option<f64> {
        let deltas: Vec<f64> = self.moving().take(PLATEAU_CYCLES).map(|cycle| cycle.delta).collect();
        (deltas.len() == PLATEAU_CYCLES).then(|| deltas.iter().sum::<f64>() / PLATEAU_CYCLES as f64)
    }

    /// The newest cycles, as many as are wanted, oldest first.
    pub fn newest(&self, limit: usize) -> impl Iterator<Item = &Cycle> {
        self.history.iter().skip(self.history.len().saturating_sub(limit))
    }

    /// The cycles that had new experience, newest first. One without says nothing about how learning goes.
    pub fn moving(&self) -> impl Iterator<Item = &Cycle> {
        self.history.iter().rev().filter(|cycle| cycle.fresh > 0)
    }

    /// The newest mean score, 0 to 1; nothing before there is experience.
    pub fn score(&self) -> Option<f64> {
        self.moving().next().and_then(|cycle| cycle.score)
    }

    /// Whether the score stands still although there is something left to gain.
    pub fn on_plateau(&self) -> bool {
        self.mean_delta().is_some_and(|mean| mean < PLATEAU_DELTA)
            && self.score().is_some_and(|score| score < PLATEAU_SCORE)
    }

    /// What rules can ask for, by the names of the indicators.
    pub fn indicators(&self, running: Option<Duration>, memory_bytes: u64, now: Timestamp) -> BTreeMap<String, f64> {
        let metrics = self.metrics().map(values);
        // Cycles that somebody has ended don't count as stopped: there is nothing to mend.
        let active = self.continuous.then(|| f64::from(u8::from(running.is_some() || !self.is_overdue(now))));
        let all = [
            ("continuous_active", active),
            ("learning_velocity", metrics.map(|[velocity, ..]| velocity)),
            ("mean_improvement", self.mean_delta()),
            ("meta_score", self.score()),
            ("stuck_phase_seconds", Some(running.map_or(0.0, |running| running.as_secs_f64()))),
            ("meta_memory_bytes", Some(memory_bytes as f64)),
            ("meta_metric_min", metrics.map(|values| values.into_iter().fold(f64::INFINITY, f64::min))),
            ("meta_metric_max", metrics.map(|values| values.into_iter().fold(f64::NEG_INFINITY, f64::max))),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Whether a boost is due: on a plateau, once in so many cycles as make one.
    pub fn wants_boost(&self) -> bool {
        self.on_plateau() && (self.boosts == 0 || self.cycles >= self.boosted_at + PLATEAU_CYCLES as u64)
    }

    pub fn boosted(&mut self) {
        self.boosts += 1;
        self.boosted_at = self.cycles;
    }

    /// Whether the metrics are what metrics can be.
    pub fn metrics_healthy(&self) -> bool {
        self.metrics().is_none_or(|metrics| values(metrics).iter().all(|value| (0.0..=1.0).contains(value)))
    }

    /// What is the matter.
    pub fn alerts(&self, memory_bytes: u64, now: Timestamp) -> Vec<Alert> {
        let within_interval = |at: Option<Timestamp>| {
            at.is_some_and(|at| now.as_millisecond() - at.as_millisecond() <= self.interval().max(60_000))
        };
        let mut alerts = Vec::new();
        let mut add = |name, severity, message: String, action| {
            alerts.push(Alert { name, severity, message, action });
        };
        if let Some(mean) = self.mean_delta().filter(|_| self.on_plateau()) {
            let message = format!("the score gained {mean:.4} a cycle over {PLATEAU_CYCLES} cycles");
            add("plateau_detected", "warning", message, "exploration is boosted");
        }
        if within_interval(self.stuck_at) {
            add("stuck_phase", "critical", "a cycle hung".to_owned(), "the cycle was given up");
        }
        if !self.metrics_healthy() {
            add("metric_anomaly", "warning", "a metric is outside of 0 to 1".to_owned(), "none");
        }
        if memory_bytes > MEMORY_MAX {
            let message = format!("the process has {} MB", memory_bytes / 1_000_000);
            add("high_memory", "critical", message, "none; an AlertPolicy may restart the coordinator");
        }
        if within_interval(self.restarted_at) {
            let message = "cycles that were due had not run".to_owned();
            add("continuous_stopped", "critical", message, "the cycles were started again");
        }
        alerts
    }
}

fn values(metrics: &MetaMetrics) -> [f64; 4] {
    let MetaMetrics { learning_velocity, adaptation_speed, knowledge_retention, transfer_efficiency } = metrics;
    [*learning_velocity, *adaptation_speed, *knowledge_retention, *transfer_efficiency]
}

/// The mean of what is told of the partitions, weighted by experience; nothing where nothing is.
fn weighed(said: &[&Heard], what: impl Fn(&Heard) -> Option<f64>) -> Option<f64> {
    let (sum, weights) = said.iter().fold((0.0, 0.0), |(sum, weights), heard| {
        let weight = heard.report.experiences as f64;
        what(heard).map_or((sum, weights), |value| (sum + weight * value, weights + weight))
    });
    (weights > 0.0).then(|| sum / weights)
}

/// How much the partitions gained that were scored before, too: one that is new, or isn't heard, is no change of learning.
fn gain(before: &BTreeMap<String, f64>, said: &[&Heard]) -> f64 {
    let change = |heard: &Heard| before.get(&heard.partition).map(|before| heard.report.score - before);
    weighed(said, change).unwrap_or(0.0)
}

fn mean(said: &[&Heard]) -> Option<MetaMetrics> {
    let mut sums = [0.0; 4];
    let mut weights = 0.0;
    for heard in said {
        let Some(metrics) = &heard.report.metrics else { continue };
        let weight = heard.report.experiences as f64;
        weights += weight;
        for (sum, value) in sums.iter_mut().zip(values(metrics)) {
            *sum += weight * value;
        }
    }
    let [learning_velocity, adaptation_speed, knowledge_retention, transfer_efficiency] =
        sums.map(|sum| sum / weights.max(1.0));
    (weights > 0.0).then_some(MetaMetrics {
        learning_velocity,
        adaptation_speed,
        knowledge_retention,
        transfer_efficiency,
    })
}

#[cfg(test)]
mod tests {
    use hebb_engine::Tuning;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn heard(score: f64, fresh: u64) -> [Heard; 1] {
        let report = CycleReport {
            cycle: 1,
            experiences: 600,
            fresh,
            score,
            metrics: Some(MetaMetrics::default()),
            explored: Vec::new(),
            adopted: None,
            tuning: Tuning::default(),
            boosted: false,
        };
        [Heard { partition: "d/0".to_owned(), report, source: MetricsSource::Live }]
    }

    #[test]
    fn a_plateau_takes_five_cycles_is_boosted_once_in_five_and_ends_with_a_gain() {
        let mut state = State::default();
        let names = |state: &State| state.alerts(0, at(0)).iter().map(|alert| alert.name).collect::<Vec<_>>();
        for _ in 0..4 {
            state.record(&heard(0.7, 10), 5, at(0));
            assert!(!state.on_plateau());
        }
        state.record(&heard(0.7, 0), 5, at(0));
        assert!(!state.on_plateau(), "without new experience nothing is known");
        state.record(&heard(0.7, 10), 5, at(0));
        assert_eq!(names(&state), ["plateau_detected"]);
        assert!(state.wants_boost());
        state.boosted();
        assert!(!state.wants_boost());
        state.record(&heard(0.8, 10), 5, at(0));
        assert!(names(&state).is_empty());
    }

    #[test]
    fn a_domain_that_comes_or_goes_is_no_gain() {
        let of = |partition: &str, score, experiences| {
            let [mut said] = heard(score, 10);
            said.partition = partition.to_owned();
            said.report.experiences = experiences;
            said
        };
        let mut state = State::default();
        let nothing = state.record(&[of("new/0", 0.0, 0)], 5, at(0));
        assert_eq!((nothing.score, nothing.delta), (None, 0.0));
        state.record(&[of("poor/0", 0.25, 100)], 5, at(0));
        let joined = state.record(&[of("poor/0", 0.25, 100), of("good/0", 1.0, 300)], 5, at(0));
        assert_eq!((joined.score, joined.delta), (Some(0.8125), 0.0), "the score is over all, the gain over the same");
        let both = state.record(&[of("poor/0", 0.5, 100), of("good/0", 1.0, 300)], 5, at(0));
        assert_eq!(both.delta, 0.0625, "weighted by experience");
        let gone = state.record(&[of("poor/0", 0.5, 100)], 5, at(0));
        assert_eq!((gone.score, gone.delta), (Some(0.5), 0.0));
    }

    #[test]
    fn what_was_tried_is_counted_by_arm() {
        let tried = |knob, step, gain| Explored { knob, step, gain, noise: 0.0 };
        let mut state = State::default();
        for gain in [0.1, 0.3] {
            let [mut said] = heard(0.7, 10);
            said.report.explored = vec![tried(Knob::Rate, 2.0, gain), tried(Knob::Rate, 0.5, -0.1)];
            said.report.adopted = (gain > 0.2).then(|| tried(Knob::Rate, 2.0, gain));
            state.record(&[said], 5, at(0));
        }
        assert_eq!(
            state.arms.iter().map(|arm| (arm.step, arm.tries, arm.adopted)).collect::<Vec<_>>(),
            [(2.0, 2, 1), (0.5, 2, 0)]
        );
        assert!((state.arms[0].mean_gain - 0.2).abs() < 1e-9);
        let [mut said] = heard(0.7, 10);
        said.source = MetricsSource::Simulated;
        said.report.explored = vec![tried(Knob::Share, 4.0, 0.1)];
        state.record(&[said], 5, at(0));
        assert_eq!(state.arms.len(), 2, "what was simulated doesn't count");
        state.reset();
        assert!(state.arms.is_empty());
    }

    #[test]
    fn what_was_stopped_by_hand_stays_so_until_the_settings_change() {
        let settings = MetaLearning { enabled: true, interval_ms: 1_000, max_cycles: 0 };
        let mut state = State::default();
        state.take_up(&settings, at(0));
        assert!(state.continuous && !state.is_due(at(0)) && state.is_due(at(1)));
        state.stop();
        state.take_up(&settings, at(10));
        assert!(!state.continuous);
        state.take_up(&MetaLearning { interval_ms: 2_000, ..settings }, at(10));
        assert!(state.continuous);
    }

    #[test]
    fn cycles_that_nobody_ran_are_taken_up_again_and_said() {
        let settings = MetaLearning { enabled: true, interval_ms: 1_000, max_cycles: 0 };
        let mut state = State::default();
        state.take_up(&settings, at(0));
        state.take_up(&settings, at(1));
        assert_eq!(state.restarted_at, None);
        state.take_up(&settings, at(30));
        assert!(state.is_due(at(30)));
        assert_eq!(state.alerts(0, at(31))[0].name, "continuous_stopped");
        assert!(state.alerts(0, at(100)).is_empty());
    }

    #[test]
    fn the_cycles_end_where_an_end_was_set() {
        let mut state = State::default();
        state.start(10, 2, at(0));
        state.went_by(at(1));
        assert!(state.continuous);
        state.went_by(at(2));
        assert!(!state.continuous);
    }

    #[test]
    fn a_full_history_fits_into_a_note() {
        let mut state = State::default();
        for _ in 0..HISTORY_MAX + 10 {
            state.record(&heard(0.123_456_789, 10), 5, at(0));
        }
        assert_eq!(state.history.len(), HISTORY_MAX);
        let change =
            Explored { knob: hebb_engine::Knob::ExplorationRate, step: 0.25, gain: 0.123_456_789, noise: 1e-9 };
        state.scores = (0..1_024).map(|index| (format!("{}/{index}", "d".repeat(63)), 0.123_456_789)).collect();
        for cycle in &mut state.history {
            cycle.adopted = vec![Adopted { partition: "d".repeat(60), change: change.clone() }; ADOPTED_MAX];
        }
        assert!(serde_json::to_vec(&state).unwrap().len() < hebb_log::MAX_NOTE_BYTES);
    }
}
