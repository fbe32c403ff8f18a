//! The alerts of Hebb: rules over indicators, routes to receivers, messages that arrive, and actions that are held in check.
//!
//! ```text
//! Observation ─▶ history ─▶ rule ─▶ state ─▶ group (route, mute) ─▶ outbox ─▶ Decision.sends ─▶ notify::send ─▶ receipt
//!                                     └────▶ action ─────────────────────────▶ Decision.runs ──▶ the caller ──▶ finish
//! ```
//!
//! [`evaluate`] decides and does nothing. Its [`Record`] holds what must survive a restart or a change of leader; the caller
//! stores it before it carries a decision out and again when it knows what came of it. Everything but [`notify`] is pure:
//! there is no clock, no randomness and no network in it. There is no Kubernetes anywhere in this crate.

mod action;
pub mod alertmanager;
pub mod defaults;
mod digest;
mod group;
mod history;
mod interval;
mod matcher;
mod message;
mod mute;
mod note;
pub mod notify;
mod outbox;
mod policy;
mod record;
mod retry;
mod route;
mod rule;
mod state;
mod status;
mod template;
mod time;
mod validate;

pub use action::{ActionLog, Hold, Outcome, Run, finish};
pub use history::{History, Point, aggregate};
pub use message::{Labels, Message, NOTICES_MAX, Notice, Standing};
pub use mute::Mute;
pub use note::Note;
pub use outbox::{Delivery, Receipt, receipt, take_due};
pub use policy::{Decision, Observation, Policy, Target, evaluate};
pub use record::{
    ACTIONS_MAX, ALERTS_MAX, Came, DEDUP_MAX, GROUPS_MAX, Group, Intent, OUTBOX_MAX, RECORD_BYTES_MAX, Record,
    RecordError, Told,
};
pub use retry::{Analysis, Breaker, Deliveries, FailureKind, SendError, analyze_failures, delay};
pub use rule::{Verdict, evaluate as evaluate_rule};
pub use state::{Alert, Stand, Timing, fingerprint, labels, step};
pub use status::{Fact, invalid};
pub use validate::problems;
