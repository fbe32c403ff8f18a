//! Decides which pod of a Redis with Sentinels is renewed next when their template has changed: pure.
//!
//! One at a time, each when all others are ready, and the primary last: every other order would move the primary more often.

use std::time::Duration;

use hebb_api::names::Role;

use super::healing::Sick;
use super::pods::PodView;

/// How long the others must have been ready: Sentinels look every ten seconds whether a replica may be elected.
const SETTLED_AFTER: Duration = Duration::from_secs(12);

/// The pod to renew now, of so many that should be there, all with a template of this digest.
pub fn next(pods: &[PodView], desired: i32, template: &str, primary: Option<&str>) -> Option<Sick> {
    let members: Vec<&PodView> = pods.iter().filter(|pod| pod.role == Some(Role::Redis)).collect();
    if usize::try_from(desired) != Ok(members.len()) || members.iter().any(|pod| pod.leaving) {
        return None;
    }
    let primary = primary?;
    let settled = |pod: &&&PodView| pod.ready && pod.in_this_state_for >= SETTLED_AFTER;
    let mut outdated: Vec<&&PodView> = members.iter().filter(|pod| pod.template.as_deref() != Some(template)).collect();
    outdated.sort_by_key(|pod| (pod.name == primary, pod.ready, std::cmp::Reverse(pod.name.clone())));
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
            in_this_state_for: SETTLED_AFTER,
            waiting: None,
            restarts: 0,
            template: Some(if new { "new" } else { "old" }.to_owned()),
            marked: false,
        };
        states.into_iter().enumerate().map(pod).collect()
    }

    fn check(states: [(bool, bool); 3], primary: Option<&str>, wanted: Option<&str>) {
        let chosen = next(&pods(states), 3, "new", primary).map(|sick| sick.pod);
        assert_eq!(chosen.as_deref(), wanted, "{states:?} {primary:?}");
    }

    #[test]
    fn replicas_are_renewed_one_after_the_other_and_the_primary_last() {
        let (old, new, unready, broken) = ((true, false), (true, true), (false, true), (false, false));
        check([old, old, old], Some("r-2"), Some("r-1"));
        check([old, unready, old], Some("r-2"), None);
        check([old, new, old], Some("r-2"), Some("r-0"));
        check([new, new, old], Some("r-2"), Some("r-2"));
        check([new, new, new], Some("r-2"), None);
        check([old, old, old], None, None);
        // One of a bad revision goes first, when that is taken back.
        check([broken, old, new], Some("r-2"), Some("r-0"));
        check([broken, unready, new], Some("r-2"), None);
    }

    #[test]
    fn nothing_is_renewed_while_a_pod_comes_or_goes() {
        let mut three = pods([(true, false); 3]);
        assert_eq!(next(&three[..2], 3, "new", Some("r-0")), None);
        three[1].in_this_state_for = Duration::ZERO;
        assert_eq!(next(&three, 3, "new", Some("r-0")), None, "it can't be elected yet");
        three[1].in_this_state_for = SETTLED_AFTER;
        three[2].leaving = true;
        assert_eq!(next(&three, 3, "new", Some("r-0")), None);
    }
}
