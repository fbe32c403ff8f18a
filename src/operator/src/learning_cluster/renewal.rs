//! Decides which pod of a Redis whose members find each other is renewed next when their template has changed: pure.
//!
//! One at a time, each when all others are ready, and primaries last: every other order would move a primary more often.

use std::time::Duration;

use hebb_api::names::Role;

use super::healing::Sick;
use super::pods::PodView;

/// How long the others must have been ready: Sentinels look every ten seconds whether a replica may be elected.
pub const SENTINELS_SETTLE: Duration = Duration::from_secs(12);
/// How long they must have been ready in a Redis Cluster, whose servers hear of each other every second.
pub const SHARDS_SETTLE: Duration = Duration::from_secs(3);

/// The pod to renew now, of so many that should be there, all with a template of this digest.
pub fn next(pods: &[PodView], desired: i32, template: &str, primaries: &[String], settle: Duration) -> Option<Sick> {
    let members: Vec<&PodView> = pods.iter().filter(|pod| pod.role == Some(Role::Redis)).collect();
    if usize::try_from(desired) != Ok(members.len()) || members.iter().any(|pod| pod.leaving) {
        return None;
    }
    if primaries.is_empty() {
        return None;
    }
    let settled = |pod: &&&PodView| pod.ready && pod.in_this_state_for >= settle;
    let mut outdated: Vec<&&PodView> = members.iter().filter(|pod| pod.template.as_deref() != Some(template)).collect();
    outdated.sort_by_key(|pod| (primaries.contains(&pod.name), pod.ready, std::cmp::Reverse(pod.name.clone())));
    let pod = outdated.first()?;
    members.iter().filter(|other| other.name != pod.name).all(|other| settled(&other)).then(|| Sick {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        reason: "Outdated",
        force: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = SENTINELS_SETTLE;

    /// Pods by their number: ready, and whether they run the new template.
    fn pods(states: [(bool, bool); 3]) -> Vec<PodView> {
        let pod = |(number, (ready, new)): (usize, (bool, bool))| PodView {
            name: format!("r-{number}"),
            uid: String::new(),
            role: Some(Role::Redis),
            ready,
            running: true,
            leaving: false,
            overdue: None,
            in_this_state_for: SETTLE,
            waiting: None,
            restarts: 0,
            template: Some(if new { "new" } else { "old" }.to_owned()),
            marked: false,
        };
        states.into_iter().enumerate().map(pod).collect()
    }

    fn check(states: [(bool, bool); 3], primaries: &[&str], wanted: Option<&str>) {
        let names: Vec<String> = primaries.iter().map(|&name| name.to_owned()).collect();
        let chosen = next(&pods(states), 3, "new", &names, SETTLE).map(|sick| sick.pod);
        assert_eq!(chosen.as_deref(), wanted, "{states:?} {primaries:?}");
    }

    #[test]
    fn replicas_are_renewed_one_after_the_other_and_the_primary_last() {
        let (old, new, unready, broken) = ((true, false), (true, true), (false, true), (false, false));
        check([old, old, old], &["r-2"], Some("r-1"));
        check([old, unready, old], &["r-2"], None);
        check([old, new, old], &["r-2"], Some("r-0"));
        check([new, new, old], &["r-2"], Some("r-2"));
        check([new, new, new], &["r-2"], None);
        check([old, old, old], &[], None);
        check([old, old, old], &["r-2", "r-1"], Some("r-0"));
        check([new, old, old], &["r-2", "r-1"], Some("r-2"));
        // One of a bad revision goes first, when that is taken back.
        check([broken, old, new], &["r-2"], Some("r-0"));
        check([broken, unready, new], &["r-2"], None);
    }

    #[test]
    fn nothing_is_renewed_while_a_pod_comes_or_goes() {
        let mut three = pods([(true, false); 3]);
        let first = ["r-0".to_owned()];
        assert_eq!(next(&three[..2], 3, "new", &first, SETTLE), None);
        three[1].in_this_state_for = Duration::ZERO;
        assert_eq!(next(&three, 3, "new", &first, SETTLE), None, "it can't be elected yet");
        three[1].in_this_state_for = SETTLE;
        three[2].leaving = true;
        assert_eq!(next(&three, 3, "new", &first, SETTLE), None);
    }
}
