//! What is simulated: how big a cluster, how long, under which load and which faults.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

/// Everything may happen once in so long to each process: the probabilities of [`Faults`] are those of one such round.
pub const ROUND: Duration = Duration::from_secs(10);

/// A simulation. Equal settings give equal results.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How long clients send events, in simulated time.
    pub duration: Duration,
    /// Events a second, of all clients.
    pub rate: f64,
    /// Workers.
    pub workers: u32,
    /// Partitions of the one domain.
    pub partitions: u32,
    /// Gateways.
    pub gateways: u32,
    /// Coordinators.
    pub coordinators: u32,
    /// Most experiences and ids that a partition remembers: so small that it is full long before the end.
    pub remembered: u32,
    /// How often a partition is checkpointed at most.
    pub checkpoint_interval: Duration,
    /// What happens to messages.
    pub messages: Messages,
    /// What happens to processes, the store and the clock.
    pub faults: Faults,
    /// Whether a worker dies half-way, and stays away until the others have long taken over.
    pub one_dies: bool,
    /// Whether nothing else happens in this process, so that its memory can be judged.
    pub alone: bool,
    /// Which of the promises about answers are held against this run.
    pub promises: Promises,
}

/// What happens to messages, each on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Messages {
    /// How long most take; they overtake each other within it.
    pub delay: Range<Duration>,
    /// The probability that one takes far longer.
    pub late: f64,
    /// How much longer.
    pub late_by: Range<Duration>,
    /// The probability that a call arrives a second time, later.
    pub duplicate: f64,
}

/// The probabilities of one [`ROUND`], each from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Faults {
    /// Of each process: it dies on the spot, and is back a few seconds later.
    pub crash: f64,
    /// Of each process: it is asked to leave, as in an upgrade, and comes back.
    pub restart: f64,
    /// Of each process: it and the store can't reach each other, one way or both, for some seconds.
    pub cut: f64,
    /// Of each process: everything to and from it takes up to 300 ms longer, for some seconds.
    pub slow: f64,
    /// Of the store: nobody reaches it for up to three seconds.
    pub store_away: f64,
    /// Of the store's clock: it jumps by up to three seconds, back or forth.
    pub clock_jump: f64,
}

/// What is promised about answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Promises {
    /// Nothing: faults come faster than anybody could keep a promise.
    None,
    /// More than 99 % succeed, in less than 100 ms on average.
    Success,
    /// The same, and 99 % within two seconds. Needs a run that is long enough for it to mean something.
    Latency,
}

/// A choice of settings under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Ten minutes of what a cluster has to put up with.
    Standard,
    /// Eight hours of it.
    Nightly,
    /// A minute of far more than that: what the tests run, seed after seed.
    Chaos,
    /// Two minutes in which one worker dies and nothing else happens, for figures about size.
    Sizing,
}

impl Profile {
    /// The settings of the profile.
    pub fn settings(self, seed: u64) -> Settings {
        let standard = Settings {
            seed,
            duration: Duration::from_secs(600),
            rate: 10.0,
            workers: 3,
            partitions: 6,
            gateways: 2,
            coordinators: 3,
            remembered: 250,
            checkpoint_interval: Duration::from_secs(5),
            messages: Messages {
                delay: Duration::from_millis(1)..Duration::from_millis(3),
                late: 0.001,
                late_by: Duration::from_millis(20)..Duration::from_millis(400),
                duplicate: 0.001,
            },
            faults: Faults { crash: 0.01, restart: 0.005, cut: 0.003, slow: 0.01, store_away: 0.005, clock_jump: 0.01 },
            one_dies: false,
            alone: false,
            promises: Promises::Success,
        };
        match self {
            Self::Standard => standard,
            Self::Nightly => Settings {
                duration: Duration::from_secs(8 * 3600),
                remembered: 2_000,
                promises: Promises::Latency,
                ..standard
            },
            Self::Chaos => Settings {
                duration: Duration::from_secs(60),
                remembered: 50,
                messages: Messages {
                    late: 0.01,
                    late_by: standard.messages.late_by.start..Duration::from_secs(6),
                    duplicate: 0.02,
                    ..standard.messages
                },
                faults: Faults { crash: 0.15, restart: 0.05, cut: 0.1, slow: 0.1, store_away: 0.1, clock_jump: 0.3 },
                promises: Promises::None,
                ..standard
            },
            Self::Sizing => Settings {
                duration: Duration::from_secs(120),
                one_dies: true,
                messages: Messages { late: 0.0, duplicate: 0.0, ..standard.messages },
                faults: Faults { crash: 0.0, restart: 0.0, cut: 0.0, slow: 0.0, store_away: 0.0, clock_jump: 0.0 },
                ..standard
            },
        }
    }
}
