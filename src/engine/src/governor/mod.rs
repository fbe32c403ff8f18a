//! Governed memory: an admission filter in front of a bounded store of vectors, in a rhythm of waking and sleeping.
//!
//! An event is one step. Awake, what is accepted is kept. Asleep, it waits for the next waking, and the store is
//! consolidated: what is nearly the same becomes one, what nothing has confirmed fades and goes.

mod filter;
mod keep;

use serde::{Deserialize, Serialize};

use self::filter::Filter;
pub use self::keep::Keep;
use crate::config::{Governance, Rhythm, Thresholds};

/// Whether the memory takes in or consolidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It takes in.
    Wake,
    /// It consolidates.
    Sleep,
}

/// What became of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether its value reached the threshold.
    pub accepted: bool,
    /// The phase in which it came. What is accepted in sleep is kept at the next waking.
    pub phase: Phase,
    /// The threshold that it was held against, 0 to 1.
    pub threshold: f64,
}

/// What a governed memory says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GovernorState {
    /// The phase of the next event.
    pub phase: Phase,
    /// The step within the phase, from 0.
    pub step: u8,
    /// The threshold of the next event, 0 to 1.
    pub threshold: f64,
    /// Fading mean of what was accepted, 0 to 1.
    pub acceptance: f64,
    /// Vectors accepted and rejected so far.
    pub accepted: u64,
    /// See `accepted`.
    pub rejected: u64,
    /// Vectors that are kept, and how many can be at most.
    pub vectors: u64,
    /// See `vectors`; it shrinks with wider vectors.
    pub capacity: u64,
    /// Numbers of a vector; 0 before the first.
    pub width: u32,
    /// Bytes of what is kept.
    pub bytes: u64,
    /// Accepted vectors that wait for the next waking.
    pub waiting: u32,
    /// Vectors that became one with another, that faded, and that gave way to others in a full store.
    pub merged: u64,
    /// See `merged`.
    pub pruned: u64,
    /// See `merged`.
    pub evicted: u64,
    /// Events awake, then asleep.
    pub rhythm: Rhythm,
    /// Where the threshold began, and what it is within.
    pub admission: Thresholds,
}

/// A governed memory of versions 1 and 2 of the snapshot, whose rhythm and thresholds couldn't be chosen.
#[derive(Deserialize)]
pub struct GovernorOf2 {
    filter: Filter,
    step: u8,
    waiting: Vec<(Vec<f32>, f32)>,
    keep: Keep,
    accepted: u64,
    rejected: u64,
}

impl From<GovernorOf2> for Governor {
    fn from(old: GovernorOf2) -> Self {
        let GovernorOf2 { filter, step, waiting, keep, accepted, rejected } = old;
        Self { governance: Governance::default(), filter, step, waiting, keep, accepted, rejected }
    }
}

/// A governed memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Governor {
    governance: Governance,
    filter: Filter,
    /// Within the rhythm, awake first.
    step: u8,
    waiting: Vec<(Vec<f32>, f32)>,
    keep: Keep,
    accepted: u64,
    rejected: u64,
}

impl Governor {
    /// A memory of at most `max` vectors.
    pub fn new(max: u32, governance: Governance) -> Self {
        Self {
            filter: Filter::new(&governance.admission),
            governance,
            step: 0,
            waiting: Vec::new(),
            keep: Keep::new(max),
            accepted: 0,
            rejected: 0,
        }
    }

    /// How it is run.
    pub fn governance(&self) -> Governance {
        self.governance
    }

    /// Takes up another rhythm, which begins with waking, and other bounds of the threshold. A threshold that nothing was held
    /// against begins anew.
    pub fn govern(&mut self, governance: Governance) {
        if self.governance.rhythm != governance.rhythm {
            self.step = 0;
        }
        if self.accepted + self.rejected == 0 {
            self.filter = Filter::new(&governance.admission);
        }
        self.filter.bound(&governance.admission);
        self.governance = governance;
    }

    /// The width that vectors must have; nothing before the first.
    pub fn width(&self) -> Option<usize> {
        self.waiting.first().map(|(vector, _)| vector.len()).or((self.keep.width() > 0).then_some(self.keep.width()))
    }

    fn phase(&self) -> Phase {
        if self.step < self.governance.rhythm.wake { Phase::Wake } else { Phase::Sleep }
    }

    /// One step: judges a vector by its value, 0 to 1, keeps it or lets it go, and consolidates in sleep.
    pub fn step(&mut self, vector: &[f32], value: f64) -> Verdict {
        let (phase, threshold) = (self.phase(), self.filter.threshold());
        let accepted = self.filter.judge(value, &self.governance.admission);
        *(if accepted { &mut self.accepted } else { &mut self.rejected }) += 1;
        if phase == Phase::Wake {
            for (vector, value) in std::mem::take(&mut self.waiting) {
                self.keep.insert(&vector, value);
            }
        } else {
            self.keep.consolidate();
        }
        match (accepted, phase) {
            (true, Phase::Wake) => self.keep.insert(vector, value as f32),
            (true, Phase::Sleep) => self.waiting.push((vector.to_vec(), value as f32)),
            (false, _) => {}
        }
        let Rhythm { wake, sleep } = self.governance.rhythm;
        self.step = (self.step + 1) % (wake + sleep);
        Verdict { accepted, phase, threshold }
    }

    /// What it says of itself.
    pub fn state(&self) -> GovernorState {
        let phase = self.phase();
        GovernorState {
            phase,
            step: if phase == Phase::Wake { self.step } else { self.step - self.governance.rhythm.wake },
            threshold: self.filter.threshold(),
            acceptance: self.filter.acceptance(),
            accepted: self.accepted,
            rejected: self.rejected,
            vectors: self.keep.len() as u64,
            capacity: self.keep.capacity() as u64,
            width: self.width().unwrap_or(0) as u32,
            bytes: self.bytes() as u64,
            waiting: self.waiting.len() as u32,
            merged: self.keep.merged,
            pruned: self.keep.pruned,
            evicted: self.keep.evicted,
            rhythm: self.governance.rhythm,
            admission: self.governance.admission,
        }
    }

    /// Takes up another bound; the least important go where it is smaller.
    pub fn limit(&mut self, max: u32) {
        self.keep.limit(max);
    }

    /// Share of the vectors that were rejected lately; nothing before the first.
    pub fn rejection_rate(&self) -> Option<f64> {
        (self.accepted + self.rejected > 0).then(|| 1.0 - self.filter.acceptance())
    }

    /// Vectors that were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Vectors that are kept.
    pub fn len(&self) -> usize {
        self.keep.len()
    }

    pub fn bytes(&self) -> usize {
        self.keep.bytes() + self.waiting.iter().map(|(vector, _)| vector.len() * 4).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_steps_awake_and_three_asleep_and_nothing_accepted_is_lost_between() {
        let mut governor = Governor::new(100, Governance::default());
        let mut phases = Vec::new();
        for number in 0..22u8 {
            // Far from each other, so that none becomes one with another.
            let vector = [f32::from(number) * 100.0, 1.0];
            let verdict = governor.step(&vector, 1.0);
            assert!(verdict.accepted);
            phases.push(verdict.phase);
            assert_eq!(governor.len() + governor.waiting.len(), usize::from(number) + 1);
        }
        let cycle = [[Phase::Wake; 8].as_slice(), &[Phase::Sleep; 3]].concat();
        assert_eq!(phases, [cycle.clone(), cycle].concat());
        assert_eq!(governor.state().waiting, 3);
        governor.step(&[-1.0, 0.0], 0.0);
        assert_eq!((governor.state().waiting, governor.state().rejected), (0, 1));
    }

    #[test]
    fn another_rhythm_begins_awake_and_other_bounds_hold_at_once() {
        let mut governor = Governor::new(100, Governance::default());
        for number in 0..10u8 {
            governor.step(&[f32::from(number) * 100.0, 1.0], 1.0);
        }
        assert_eq!((governor.state().phase, governor.state().waiting), (Phase::Sleep, 2));
        let rhythm = Rhythm { wake: 2, sleep: 1 };
        let admission = Thresholds { initial_threshold: 0.2, max_threshold: 0.4, ..Thresholds::default() };
        governor.govern(Governance { rhythm, admission });
        assert_eq!(governor.state().threshold, 0.4, "it was above, and has no new beginning");
        let phases: Vec<Phase> =
            (10..16u8).map(|number| governor.step(&[f32::from(number) * 100.0, 1.0], 1.0).phase).collect();
        assert_eq!(phases, [Phase::Wake, Phase::Wake, Phase::Sleep].repeat(2));
        assert_eq!(governor.len() + governor.waiting.len(), 16, "what waited was kept");
    }

    #[test]
    fn an_initial_threshold_is_for_a_memory_that_has_judged_nothing() {
        let governance = Governance {
            admission: Thresholds { initial_threshold: 0.8, ..Thresholds::default() },
            ..Governance::default()
        };
        let mut governor = Governor::new(100, Governance::default());
        governor.govern(governance);
        assert_eq!(governor.step(&[1.0], 0.7).threshold, 0.8);
        let after = governor.state().threshold;
        governor.govern(Governance::default());
        assert_eq!(governor.state().threshold, after);
    }
}
