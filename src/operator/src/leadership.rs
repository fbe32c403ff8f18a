//! Who may act: one operator at a time, by a Lease.
//!
//! [`next_spec`] decides, purely. A holder's silence is measured on the own monotonic clock from when its record was last
//! seen to change, so clocks of different machines needn't agree. Who loses the lease ends its process.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// A holder that is silent for this long is replaced.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A holder that couldn't renew for this long stops acting.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often everyone looks.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
const _: () = assert!(RENEW_DEADLINE.as_secs() < LEASE_DURATION.as_secs());

/// What to write into the Lease, or nothing while somebody else holds it.
pub fn next_spec(identity: &str, seen: &LeaseSpec, silent_for: Duration, now: Timestamp) -> Option<LeaseSpec> {
    let holder = seen.holder_identity.as_deref().unwrap_or_default();
    let duration = seen
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(LEASE_DURATION, Duration::from_secs);
    let mine = holder == identity;
    if !mine && !holder.is_empty() && silent_for < duration {
        return None;
    }
    let transitions = seen.lease_transitions.unwrap_or(0);
    Some(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: if mine { seen.acquire_time.clone() } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
        preferred_holder: None,
        strategy: None,
    })
}

/// For how long the lease still counts, as far as this candidate knows; nothing once a leader must have stopped.
fn remaining(leads: bool, since_renewal: Duration) -> Option<Duration> {
    match leads {
        true => RENEW_DEADLINE.checked_sub(since_renewal).filter(|left| !left.is_zero()),
        false => Some(RENEW_DEADLINE),
    }
}

/// Stands for leader for as long as the process runs.
pub struct Candidate {
    pub api: Api<Lease>,
    pub name: String,
    pub identity: String,
}

/// A record as it was last seen, and since when it hasn't changed.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Candidate {
    /// Campaigns until the stop. `leads` becomes true with the lease; returns early when a held lease is lost.
    pub async fn run(&self, leads: &watch::Sender<bool>, mut stop: watch::Receiver<bool>) {
        let mut seen = Seen { version: None, since: Instant::now() };
        let mut renewed_at = Instant::now();
        loop {
            let asked_at = Instant::now();
            // A process that was frozen finds that out before it acts.
            let Some(left) = remaining(*leads.borrow(), renewed_at.elapsed()) else {
                warn!("the lease could not be renewed in time");
                return;
            };
            match timeout(left.min(RENEW_DEADLINE / 2), self.pass(&mut seen)).await {
                Ok(Ok(true)) => {
                    // The others count from when they saw the write, which is no earlier.
                    renewed_at = asked_at;
                    if !leads.send_replace(true) {
                        info!(identity = self.identity, "leading");
                    }
                }
                Ok(Ok(false)) => {
                    if *leads.borrow() {
                        warn!("another operator took the lease");
                        return;
                    }
                }
                Ok(Err(error)) => debug!(%error, "the lease could not be read or written; trying again"),
                Err(_) => debug!("the API server is too slow for the lease; trying again"),
            }
            let pause = remaining(*leads.borrow(), renewed_at.elapsed()).unwrap_or_default().min(RETRY_PERIOD);
            tokio::select! {
                _ = stop.wait_for(|asked| *asked) => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if *leads.borrow() {
            self.release().await;
        }
    }

    /// Whether this candidate holds the lease now.
    async fn pass(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let spec = next_spec(&self.identity, &LeaseSpec::default(), LEASE_DURATION, Timestamp::now());
            return match self.api.create(&PostParams::default(), &Lease { metadata, spec }).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            };
        };
        if seen.version != lease.metadata.resource_version {
            *seen = Seen { version: lease.metadata.resource_version.clone(), since: Instant::now() };
        }
        let held = lease.spec.clone().unwrap_or_default();
        let Some(next) = next_spec(&self.identity, &held, seen.since.elapsed(), Timestamp::now()) else {
            return Ok(false);
        };
        lease.spec = Some(next);
        // The resourceVersion that came along makes two candidates' writes exclude each other.
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| true)
    }

    /// Empties the record, so that the next one needn't wait.
    async fn release(&self) {
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) =
                lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
            {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(RENEW_DEADLINE / 2, released).await {
            Ok(Ok(())) => info!("released the lease"),
            Ok(Err(error)) => warn!(%error, "the lease could not be released; it expires by itself"),
            Err(_) => warn!("the lease could not be released in time; it expires by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    proptest! {
        #[test]
        fn nobody_takes_a_lease_whose_holder_was_heard_within_its_duration(silent in 0u64..15_000) {
            let silent = Duration::from_millis(silent);
            prop_assert_eq!(next_spec("b", &held_by("a"), silent, Timestamp::UNIX_EPOCH), None);
        }

        #[test]
        fn a_change_of_holder_counts_one_transition_and_a_renewal_none(silent in 15_000u64..1_000_000) {
            let silent = Duration::from_millis(silent);
            let taken = next_spec("b", &held_by("a"), silent, Timestamp::UNIX_EPOCH).unwrap();
            prop_assert_eq!(taken.lease_transitions, Some(4));
            let renewed = next_spec("b", &taken, silent, Timestamp::UNIX_EPOCH).unwrap();
            prop_assert_eq!(renewed.lease_transitions, Some(4));
            prop_assert_eq!(next_spec("a", &renewed, Duration::ZERO, Timestamp::UNIX_EPOCH), None);
        }
    }

    proptest! {
        #[test]
        fn a_leader_stops_before_anybody_may_follow(since_renewal in 0u64..40_000) {
            let since_renewal = Duration::from_millis(since_renewal);
            // Neither a request nor a pause is begun that would last beyond it.
            let until = remaining(true, since_renewal).map_or(Duration::ZERO, |left| since_renewal + left);
            prop_assert!(until < LEASE_DURATION);
            prop_assert_eq!(remaining(true, since_renewal).is_some(), since_renewal < RENEW_DEADLINE);
        }
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        assert!(next_spec("b", &held_by(""), Duration::ZERO, Timestamp::UNIX_EPOCH).is_some());
    }
}
