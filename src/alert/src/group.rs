//! Alerts that are told together: when a group speaks, to whom, and what is news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hebb_api::{Mode, Severity};
use jiff::Timestamp;

use crate::digest::digest;
use crate::message::{Labels, Message, NOTICES_MAX, Notice, Standing, title};
use crate::mute::Mute;
use crate::note::Note;
use crate::outbox::has_room;
use crate::policy::Policy;
use crate::record::{DEDUP_MAX, GROUPS_MAX, Group, Intent, Record, Told};
use crate::route::{CompiledRoute, taken};
use crate::state::Alert;
use crate::time::{after, elapsed, reached};

/// How long the end of an alert that is muted may be kept from those who know of its beginning.
const END_DELAY_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longer than any wait of a group.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Bytes of a message in the outbox.
const MESSAGE_BYTES_MAX: usize = 8_192;

/// What is known of the present beside the record.
pub(crate) struct Present<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
    /// Why alerts aren't told, by fingerprint.
    pub(crate) mutes: &'a BTreeMap<String, Mute>,
    /// How an alert is described.
    pub(crate) describe: &'a dyn Fn(&str, &Alert, Standing) -> Notice,
}

/// Lets every group speak whose time has come.
pub(crate) fn speak(record: &mut Record, present: &Present<'_>, notes: &mut Vec<Note>) {
    let members = gather(record, present);
    let keys: Vec<String> = record.groups.keys().cloned().collect();
    for key in keys {
        let firing = members.get(&key).cloned().unwrap_or_default();
        turn(record, present, &key, &firing, notes);
    }
    forget(record, present, &members);
}

/// The alerts of each group that fire, by fingerprint; groups that are new begin to wait.
fn gather(record: &mut Record, present: &Present<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let policy = present.policy;
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (fingerprint, alert) in record.alerts.iter().filter(|(_, alert)| alert.is_firing()) {
        for route in taken(&policy.routes, &alert.labels) {
            let labels = route.group_labels(&alert.labels);
            let key = route.group_key(&policy.id(), &labels);
            if !record.groups.contains_key(&key) {
                if record.groups.len() == GROUPS_MAX {
                    continue;
                }
                record.groups.insert(key.clone(), begin(route, labels, present.now));
            }
            members.entry(key).or_default().insert(fingerprint.clone());
        }
    }
    members
}

fn begin(route: &CompiledRoute, labels: Labels, now: Timestamp) -> Group {
    Group {
        route: route.key.clone(),
        labels,
        created_at: now,
        next_at: after(now, route.spec.group_wait.0),
        firing_since: None,
        told: BTreeMap::new(),
        messages: 0,
    }
}

/// A group's turn, if it is due.
fn turn(record: &mut Record, present: &Present<'_>, key: &str, firing: &BTreeSet<String>, notes: &mut Vec<Note>) {
    let (policy, now) = (present.policy, present.now);
    let Some(mut group) = record.groups.get(key).cloned() else { return };
    let Some(route) = policy.routes.iter().find(|route| route.key == group.route) else { return };
    if !reached(group.next_at, now, WAIT_MAX) {
        return;
    }
    group.next_at = after(now, route.spec.group_interval.0);
    if !policy.is_active(route, now) {
        group.firing_since = None;
        record.groups.insert(key.to_owned(), group);
        return;
    }
    let audible: BTreeSet<String> =
        firing.iter().filter(|fingerprint| !present.mutes.contains_key(*fingerprint)).cloned().collect();
    if audible.is_empty() {
        group.firing_since = None;
    } else {
        group.firing_since = Some(group.firing_since.unwrap_or(now).min(now));
    }
    let receivers: Vec<String> = match group.firing_since {
        Some(since) => route.receivers(Some(elapsed(now, since))).into_iter().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    let everybody: BTreeSet<String> = receivers.iter().cloned().chain(group.told.keys().cloned()).collect();
    for receiver in everybody {
        if record.is_pending(key, &receiver) {
            continue;
        }
        let hears = if receivers.contains(&receiver) { audible.clone() } else { BTreeSet::new() };
        let listener = Listener { key, receiver: &receiver, route, hears, firing };
        tell(record, &mut group, &listener, present, notes);
    }
    if let (Some(since), Some(step)) = (group.firing_since, route.spec.escalate_after)
        && route.receivers(Some(elapsed(now, since))).len() <= route.spec.escalate_to.len()
    {
        // The next level is due in between.
        let steps = elapsed(now, since).as_millis() / step.0.as_millis().max(1) + 1;
        let next = step.0.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        group.next_at = group.next_at.min(after(since, next));
    }
    record.groups.insert(key.to_owned(), group);
}

/// One receiver of a group.
struct Listener<'a> {
    key: &'a str,
    receiver: &'a str,
    route: &'a CompiledRoute,
    /// The firing alerts that it is told of.
    hears: BTreeSet<String>,
    /// The firing alerts of the group, muted ones too.
    firing: &'a BTreeSet<String>,
}

/// Tells a receiver what is news to it, if anything is.
fn tell(record: &mut Record, group: &mut Group, to: &Listener<'_>, present: &Present<'_>, notes: &mut Vec<Note>) {
    let (policy, now) = (present.policy, present.now);
    let Some(receiver) = policy.spec.receivers.iter().find(|receiver| receiver.name == to.receiver) else {
        group.told.remove(to.receiver);
        return;
    };
    let before = group.told.get(to.receiver).cloned();
    let known = before.clone().unwrap_or(Told { at: now, firing: BTreeSet::new(), exhausted: BTreeSet::new() });
    let exhausted: BTreeSet<String> = to.hears.iter().filter(|it| is_exhausted(record, it)).cloned().collect();
    let ended: BTreeSet<String> = known
        .firing
        .iter()
        .filter(|fingerprint| !to.firing.contains(*fingerprint) && !is_held_back(record, fingerprint, present))
        .cloned()
        .collect();
    // What is muted stays known, so that its end can be told later.
    let mut firing = known.firing.clone();
    firing.retain(|fingerprint| !ended.contains(fingerprint));
    firing.extend(to.hears.iter().cloned());
    // Of an alert that had to make room nothing can be said any more.
    let ended: BTreeSet<String> = ended.into_iter().filter(|it| record.alerts.contains_key(it)).collect();
    let told = Told { at: now, firing, exhausted: exhausted.clone() };

    let news = !to.hears.is_subset(&known.firing) || !exhausted.is_subset(&known.exhausted);
    let end = !ended.is_empty() && receiver.send_resolved;
    let repeat = !to.hears.is_empty() && to.route.spec.repeat_interval.0 <= elapsed(now, known.at);
    if !news && !end && !repeat {
        if told.firing != known.firing {
            group.told.insert(to.receiver.to_owned(), Told { at: known.at, ..told });
        }
        return;
    }
    let ended = if receiver.send_resolved { ended } else { BTreeSet::new() };
    let message = compose(record, group, to, &ended, present);
    let words = digest([message.severity.as_str(), &message.title, message.status.as_str()]);
    let dedup = format!("{}/{words}", to.receiver);
    if !end && is_repeated(record, &dedup, &told, to, present) {
        group.told.insert(to.receiver.to_owned(), told);
        return;
    }
    if policy.spec.mode == Mode::DryRun {
        notes.push(Note::would_tell(to.receiver, &message));
    } else if has_room(record) {
        record.outbox.push(Intent {
            key: message.idempotency_key.clone(),
            group: to.key.to_owned(),
            receiver: to.receiver.to_owned(),
            created_at: now,
            message,
            attempts: 0,
            next_at: now,
            leased_until: None,
            failing_since: None,
            before,
            dedup: (!told.firing.is_empty()).then(|| dedup.clone()),
        });
    } else {
        // It has it to tell at its next turn.
        return;
    }
    group.messages += 1;
    remember(record, dedup, &told, &ended, to.receiver);
    group.told.insert(to.receiver.to_owned(), told);
}

fn is_exhausted(record: &Record, fingerprint: &str) -> bool {
    record.alerts.get(fingerprint).is_some_and(|alert| alert.exhausted)
}

/// Whether the end of an alert isn't told for now, since the alert is muted.
fn is_held_back(record: &Record, fingerprint: &str, present: &Present<'_>) -> bool {
    let resolved_at = record.alerts.get(fingerprint).and_then(|alert| alert.resolved_at);
    let old = resolved_at.is_none_or(|at| END_DELAY_MAX <= elapsed(present.now, at));
    present.mutes.contains_key(fingerprint) && !old
}

/// Whether the receiver had the same message of late.
fn is_repeated(record: &Record, dedup: &str, told: &Told, to: &Listener<'_>, present: &Present<'_>) -> bool {
    let least = present.policy.spec.dedup_interval.0.min(to.route.spec.repeat_interval.0);
    record.dedup.get(dedup).is_some_and(|former| {
        elapsed(present.now, former.at) < least
            && told.firing.is_subset(&former.firing)
            && told.exhausted.is_subset(&former.exhausted)
    })
}

/// Remembers a message; what has ended is news when it begins again.
fn remember(record: &mut Record, dedup: String, told: &Told, ended: &BTreeSet<String>, receiver: &str) {
    let own = format!("{receiver}/");
    for (_, former) in record.dedup.iter_mut().filter(|(key, _)| key.starts_with(&own)) {
        former.firing.retain(|fingerprint| !ended.contains(fingerprint));
    }
    if told.firing.is_empty() {
        return;
    }
    record.dedup.insert(dedup, told.clone());
    if DEDUP_MAX < record.dedup.len() {
        let oldest = record.dedup.iter().min_by_key(|(_, told)| told.at).map(|(key, _)| key.clone());
        oldest.map(|key| record.dedup.remove(&key));
    }
}

fn compose(
    record: &Record,
    group: &Group,
    to: &Listener<'_>,
    ended: &BTreeSet<String>,
    present: &Present<'_>,
) -> Message {
    let mut alerts: Vec<(&String, &Alert, Standing)> = Vec::new();
    for (fingerprints, standing) in [(&to.hears, Standing::Firing), (ended, Standing::Resolved)] {
        for fingerprint in fingerprints {
            if let Some(alert) = record.alerts.get(fingerprint) {
                alerts.push((fingerprint, alert, standing));
            }
        }
    }
    let status = if to.hears.is_empty() { Standing::Resolved } else { Standing::Firing };
    let meant = alerts.iter().filter(|(_, _, standing)| *standing == status);
    let title = title(meant.clone().map(|(_, alert, _)| (alert.rule.as_str(), alert.target.as_str())));
    let severity = meant.map(|(_, alert, _)| alert.severity).max().unwrap_or(Severity::Info);
    let order = |standing: &Standing| *standing == Standing::Resolved;
    alerts.sort_by_key(|(_, alert, standing)| (order(standing), std::cmp::Reverse(alert.severity), alert.since));
    let count = alerts.len();
    let created_at = group.created_at.to_string();
    let messages = group.messages.to_string();
    let mut message = Message {
        idempotency_key: digest([to.key, to.receiver, &created_at, &messages]),
        group: to.key.to_owned(),
        policy: present.policy.id(),
        status,
        severity,
        title,
        level: to.route.level(to.receiver),
        labels: group.labels.clone(),
        at: present.now,
        alerts: alerts
            .into_iter()
            .take(NOTICES_MAX)
            .map(|(fingerprint, alert, standing)| (present.describe)(fingerprint, alert, standing))
            .collect(),
        omitted: count.saturating_sub(NOTICES_MAX),
    };
    // A few alerts with long texts may be as much as many with short ones.
    while message.alerts.len() > 1 && serde_json::to_string(&message).is_ok_and(|json| MESSAGE_BYTES_MAX < json.len()) {
        message.alerts.pop();
        message.omitted += 1;
    }
    message
}

/// Drops groups that have nothing left to tell, and those of routes that are gone.
fn forget(record: &mut Record, present: &Present<'_>, members: &BTreeMap<String, BTreeSet<String>>) {
    let outbox = &record.outbox;
    record.groups.retain(|key, group| {
        let pending = outbox.iter().any(|intent| &intent.group == key);
        let routed = present.policy.routes.iter().any(|route| route.key == group.route);
        let knows = group.told.values().any(|told| !told.firing.is_empty());
        pending || (routed && (members.contains_key(key) || knows))
    });
    let longest = present.policy.spec.dedup_interval.0;
    record.dedup.retain(|_, told| elapsed(present.now, told.at) < longest);
}

/// Whether some receiver takes the alert for firing, or did before a message that may yet come to nothing.
pub(crate) fn is_told(record: &Record, fingerprint: &str) -> bool {
    let told = record.groups.values().flat_map(|group| group.told.values());
    let before = record.outbox.iter().filter_map(|intent| intent.before.as_ref());
    told.chain(before).any(|told| told.firing.contains(fingerprint))
}
