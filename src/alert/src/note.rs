//! What should be said of a decision besides the messages: lines of a log, Events of Kubernetes.

use crate::message::Message;

/// A line of the log, and an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody should look.
    pub warning: bool,
    /// What it is about, a closed word.
    pub reason: &'static str,
    /// Name of the LearningCluster, where it is about one.
    pub target: Option<String>,
    /// What it says.
    pub text: String,
}

impl Note {
    pub(crate) fn normal(reason: &'static str, target: &str, text: String) -> Self {
        Self { warning: false, reason, target: Some(target.to_owned()), text }
    }

    pub(crate) fn warning(reason: &'static str, target: &str, text: String) -> Self {
        Self { warning: true, reason, target: Some(target.to_owned()), text }
    }

    pub(crate) fn would_tell(receiver: &str, message: &Message) -> Self {
        let text = format!("would tell {receiver}: {}", message.headline());
        Self { warning: false, reason: "DryRun", target: None, text }
    }
}
