//! What the proxy may do to the operator, and the bugs that may be planted to prove that the oracles see them.

use serde::{Deserialize, Serialize};

/// A fault. Writes are counted from 1, from the first one after the workload's preparations; renewals of the lease don't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Fault {
    /// None: a reference run.
    Nothing,
    /// The operator is killed when it sends this write, which never arrives.
    KillBefore {
        /// Which write.
        write: usize,
    },
    /// This write is done, and the operator is killed before it hears so.
    KillAfter {
        /// Which write.
        write: usize,
    },
    /// The LearningCluster is deleted when this write is sent, which arrives after that.
    DeleteOwnerBefore {
        /// Which write.
        write: usize,
    },
    /// As `DeleteOwnerBefore`, and the operator is killed as well: it hears of the deletion only after its restart.
    DeleteOwnerAndKill {
        /// Which write.
        write: usize,
    },
    /// The first try of every write is answered 409 and not done.
    ConflictOnFirstTry,
    /// The first try of every write is answered 429 with `Retry-After: 1`.
    TooManyOnFirstTry,
    /// The first try of every write is answered 500 and not done.
    ErrorOnFirstTry,
    /// The first try of every write is done, and its answer is lost with the connection.
    AnswerLostOnFirstTry,
    /// Every write takes this long.
    Slow {
        /// How long.
        milliseconds: u64,
    },
    /// Every open watch breaks off when this write is sent.
    CutWatchesAt {
        /// Which write.
        write: usize,
    },
    /// Every open watch breaks off when this write is sent, and can't be resumed where it was: 410 Gone.
    ExpireWatchesAt {
        /// Which write.
        write: usize,
    },
    /// From this write on the watches say nothing for a while, then everything at once: an API server that lags behind.
    HoldWatchesAt {
        /// Which write.
        write: usize,
        /// How long.
        milliseconds: u64,
    },
}

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It doesn't arrive, and the operator dies.
    KillBefore,
    /// It is done, and the operator dies.
    KillAfter,
    /// The owner is deleted first.
    DeleteOwner {
        /// Then the operator dies instead of writing.
        kill: bool,
    },
    /// It is answered with this code and not done.
    Refuse(u16),
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It waits.
    Wait(std::time::Duration),
    /// The watches break off, and it passes.
    CutWatches,
    /// The watches break off for good, and it passes.
    ExpireWatches,
    /// The watches fall silent, and it passes.
    HoldWatches(std::time::Duration),
}

impl Fault {
    /// What happens to the write of this number, which is the first try to do exactly this, or not.
    pub fn at(&self, number: usize, first_try: bool) -> Verdict {
        match *self {
            Fault::KillBefore { write } if write == number => Verdict::KillBefore,
            Fault::KillAfter { write } if write == number => Verdict::KillAfter,
            Fault::DeleteOwnerBefore { write } if write == number => Verdict::DeleteOwner { kill: false },
            Fault::DeleteOwnerAndKill { write } if write == number => Verdict::DeleteOwner { kill: true },
            Fault::CutWatchesAt { write } if write == number => Verdict::CutWatches,
            Fault::ExpireWatchesAt { write } if write == number => Verdict::ExpireWatches,
            Fault::HoldWatchesAt { write, milliseconds } if write == number => {
                Verdict::HoldWatches(std::time::Duration::from_millis(milliseconds))
            }
            Fault::ConflictOnFirstTry if first_try => Verdict::Refuse(409),
            Fault::TooManyOnFirstTry if first_try => Verdict::Refuse(429),
            Fault::ErrorOnFirstTry if first_try => Verdict::Refuse(500),
            Fault::AnswerLostOnFirstTry if first_try => Verdict::LoseAnswer,
            Fault::Slow { milliseconds } => Verdict::Wait(std::time::Duration::from_millis(milliseconds)),
            _ => Verdict::Pass,
        }
    }

    /// Whether the fault is that the operator dies, and nothing else.
    pub fn is_crash(&self) -> bool {
        matches!(self, Fault::KillBefore { .. } | Fault::KillAfter { .. })
    }

    /// Whether the fault is that the cluster goes.
    pub fn deletes_owner(&self) -> bool {
        matches!(self, Fault::DeleteOwnerBefore { .. } | Fault::DeleteOwnerAndKill { .. })
    }
}

/// A bug that the proxy plants in what the operator writes, as if the operator had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mutant {
    /// Deletions name no uid.
    DeleteWithoutUid,
    /// Deletions are sent twice.
    DeleteTwice,
    /// A Service that is said to have been made, and wasn't.
    ForgetService,
    /// What is made has no owner.
    ForgetOwner,
    /// The record of the last good revision is said to have been written, and wasn't.
    ForgetRevision,
    /// After a restart, the first Secret that is asked for seems to be missing, so that it is made anew.
    ForgetPassword,
    /// After a restart, a Service that is looked at is deleted and made anew.
    Remake,
    /// A status that was written is written again every few seconds.
    RepeatStatus,
    /// After a restart, the number of workers is written one too small.
    ShrinkWorkers,
    /// After a restart, the first child that is written gets a label that nobody asked for.
    StrayLabel,
    /// Every status is said to have been written, but none arrives after a restart.
    ForgetStatus,
    /// Deletions are said to have been done, and weren't.
    ForgetDelete,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 12] = [
        Mutant::DeleteWithoutUid,
        Mutant::DeleteTwice,
        Mutant::ForgetService,
        Mutant::ForgetOwner,
        Mutant::ForgetRevision,
        Mutant::ForgetPassword,
        Mutant::Remake,
        Mutant::RepeatStatus,
        Mutant::ShrinkWorkers,
        Mutant::StrayLabel,
        Mutant::ForgetStatus,
        Mutant::ForgetDelete,
    ];
}
