//! The admission webhook: says at `kubectl apply` what otherwise only the status would say, and refuses what can never work.
//!
//! review (what the API server asks) → submission (what is to be judged) → mentions (what it names) → facts (what of that is
//! there) → verdict. Only `facts` asks the API server, and what it can't find out is no reason to complain. What was wrong
//! before a change never hinders it.

mod certificate;
mod facts;
mod mention;
mod review;
mod server;
mod submission;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use hebb_alert::notify::Egress;
use kube::Client;
use tracing::{debug, info};

use self::facts::Facts;
use self::review::Review;
pub use self::server::serve;
use self::submission::Submission;
use self::verdict::Verdict;
use crate::learning_cluster::topology::Defaults;
use crate::metrics::Metrics;

/// How the webhook is served.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where.
    pub listen: SocketAddr,
    /// The folder with its certificate and key in PEM: `tls.crt` and `tls.key`.
    pub certificates: PathBuf,
    /// The last part of its path, which only the API server is told; without one everybody who reaches the port is answered.
    pub token: Option<String>,
}

/// Who answers reviews.
pub struct Desk {
    pub client: Client,
    pub metrics: Metrics,
    pub defaults: Defaults,
    pub egress: Egress,
    /// The only namespace that may be asked about, where there is one.
    pub namespace: Option<String>,
}

impl Desk {
    /// Answers one review.
    async fn answer(&self, review: &Review) -> Verdict {
        let started = Instant::now();
        let verdict = self.judge(review).await;
        self.metrics.admitted(review.kind.as_str(), verdict.outcome(), started.elapsed());
        let (kind, namespace, name) = (review.kind.as_str(), review.namespace.as_str(), review.name());
        match &verdict.refusal {
            Some(why) => info!(kind, namespace, name, why, "refused"),
            None => debug!(kind, namespace, name, warnings = verdict.warnings.len(), "admitted"),
        }
        verdict
    }

    async fn judge(&self, review: &Review) -> Verdict {
        let Some(submission) = Submission::of(review) else { return Verdict::default() };
        let mentions = submission.mentions(&self.defaults);
        let asked = mentions.iter().map(|mention| mention.thing.clone());
        let mut facts = Facts { egress: self.egress.clone(), ..Facts::default() };
        // Of another namespace an operator of one namespace may read nothing.
        if self.namespace.as_ref().is_none_or(|only| *only == review.namespace) {
            facts.found = facts::find(&self.client, &review.namespace, asked.collect()).await;
        }
        verdict::review(&submission, &mentions, &facts)
    }
}
