//! The files that a server and a Sentinel begin with, from what the operator wrote and what is known in the pod: pure.
//! Both programs write to their file: the server's is made anew at each start, and the Sentinel's keeps what it learned.

use std::fmt::Write;
use std::net::IpAddr;

use hebb_api::names::{SENTINEL_MASTER, SENTINEL_PORT};

use crate::decide::Start;

/// What a Sentinel learned by itself.
const LEARNED: [&str; 6] =
    ["monitor", "config-epoch", "leader-epoch", "current-epoch", "known-replica", "known-sentinel"];

/// The Sentinel's file: the operator's settings, the member's own name, and what stands in the former file. A member that
/// holds data without any record of an election names itself: nobody may take the group for new.
pub fn sentinel_conf(template: &str, hosts: &[String], me: usize, former: &str, holds_data: bool) -> String {
    let host = hosts.get(me).map(String::as_str).unwrap_or_default();
    let mut learned: Vec<String> = former.lines().filter(|line| is_learned(line)).map(str::to_owned).collect();
    let is_monitor = |line: &String| line.split_whitespace().nth(1) == Some("monitor");
    if holds_data && !learned.iter().any(is_monitor) {
        learned = vec![monitor(host, hosts.len())];
    }
    let knows = learned.iter().any(is_monitor);
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "sentinel myid {:040x}", me + 1);
    let _ = writeln!(text, "sentinel announce-ip {host}\nsentinel announce-port {SENTINEL_PORT}");
    for line in template
        .lines()
        .filter(|line| setting_of_primary(line).is_none())
        .chain(learned.iter().map(String::as_str).filter(|line| knows || line.starts_with("sentinel current-epoch")))
    {
        let _ = writeln!(text, "{line}");
    }
    for line in template.lines().filter(|line| knows && setting_of_primary(line).is_some()) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn monitor(host: &str, members: usize) -> String {
    format!("sentinel monitor {SENTINEL_MASTER} {host} {} {}", hebb_api::names::REDIS_PORT, members / 2 + 1)
}

fn is_learned(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("sentinel") && words.next().is_some_and(|word| LEARNED.contains(&word))
}

/// The setting of the primary that a line is, if it is one: `sentinel OPTION hebb VALUE`.
fn setting_of_primary(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["sentinel", option, SENTINEL_MASTER, value] => Some(((*option).to_owned(), (*value).to_owned())),
        _ => None,
    }
}

/// The settings of the primary in the operator's file, for a Sentinel that is told of one while it runs.
pub fn primary_settings(template: &str) -> Vec<(String, String)> {
    template.lines().filter_map(setting_of_primary).collect()
}

/// The server's file; nothing while it is to wait.
pub fn redis_conf(template: &str, hosts: &[String], me: usize, start: Start) -> Option<String> {
    let host = hosts.get(me)?;
    let mut text = format!("{}\nreplica-announce-ip {host}\n", template.trim_end());
    match start {
        Start::Wait(_) => return None,
        Start::Primary => {}
        Start::ReplicaOf { primary, promotable } => {
            let _ = writeln!(text, "replicaof {} {}", hosts.get(primary)?, hebb_api::names::REDIS_PORT);
            if !promotable {
                // Until it has been in step with the primary: an empty replica must not be elected.
                text.push_str("replica-priority 0\n");
            }
        }
    }
    Some(text)
}

/// The file of a server of a Redis Cluster: the operator's settings, and the name and address under which it is known.
pub fn cluster_conf(template: &str, host: &str, ip: IpAddr) -> String {
    format!("{}\ncluster-announce-hostname {host}\ncluster-announce-ip {ip}\n", template.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Reason;

    const TEMPLATE: &str =
        "port 26379\nrequirepass new\nsentinel down-after-milliseconds hebb 3000\nsentinel auth-pass hebb new\n";

    fn hosts() -> Vec<String> {
        (0..3).map(|member| format!("r-{member}.r")).collect()
    }

    #[test]
    fn a_new_sentinel_knows_nobody_and_one_that_comes_back_keeps_what_it_learned_but_no_password() {
        let new = sentinel_conf(TEMPLATE, &hosts(), 1, "", false);
        assert!(new.contains("announce-ip r-1.r") && new.contains("requirepass new"), "{new}");
        assert!(!new.contains("hebb"), "a setting of a primary that isn't known: {new}");
        let former = "port 26379\nrequirepass old\nsentinel monitor hebb r-2.r 6379 2\nsentinel config-epoch hebb 7\nsentinel auth-pass hebb old\nsentinel current-epoch 8\nsentinel known-sentinel hebb r-0.r 26379 01\n";
        let back = sentinel_conf(TEMPLATE, &hosts(), 1, former, true);
        for kept in ["monitor hebb r-2.r 6379 2", "config-epoch hebb 7", "current-epoch 8", "auth-pass hebb new"] {
            assert!(back.contains(kept), "{kept}: {back}");
        }
        assert!(!back.contains("old"), "{back}");
        assert_eq!(sentinel_conf(TEMPLATE, &hosts(), 1, &back, true), back, "a second start changes nothing");
    }

    #[test]
    fn data_without_a_record_is_no_new_group() {
        let text = sentinel_conf(TEMPLATE, &hosts(), 2, "", true);
        assert!(text.contains("sentinel monitor hebb r-2.r 6379 2\n"), "{text}");
    }

    #[test]
    fn a_server_begins_as_it_was_decided() {
        let conf = |start| redis_conf("requirepass p\n", &hosts(), 0, start);
        assert_eq!(conf(Start::Primary).unwrap(), "requirepass p\nreplica-announce-ip r-0.r\n");
        let replica = conf(Start::ReplicaOf { primary: 2, promotable: false }).unwrap();
        assert!(replica.ends_with("replicaof r-2.r 6379\nreplica-priority 0\n"), "{replica}");
        assert!(!conf(Start::ReplicaOf { primary: 2, promotable: true }).unwrap().contains("priority"));
        assert_eq!(conf(Start::Wait(Reason::DataLost)), None);
    }

    #[test]
    fn the_settings_of_the_primary_are_told_apart() {
        let settings = primary_settings(TEMPLATE);
        assert_eq!(settings[0], ("down-after-milliseconds".to_owned(), "3000".to_owned()));
        assert_eq!(settings.len(), 2);
    }
}
