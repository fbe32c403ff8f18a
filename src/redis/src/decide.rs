//! Decides what a server begins as: pure.
//!
//! The newest election that any Sentinel knows of says who is primary. A server obeys it with two exceptions, both of which
//! only make it wait: one that lost its data doesn't begin as the primary of others that have some, and one that comes back
//! as primary gives way to replicas that are there, because they have everything that it acknowledged and its file may not.

use std::time::Duration;

/// How long a primary that comes back waits for the Sentinels to elect one of its replicas: detection, election and
/// promotion take some five seconds, and a failed attempt is repeated after twenty.
const ELECTION_PATIENCE: Duration = Duration::from_secs(20);
/// How long a primary that comes back waits for Sentinels that are silent: one of them may know of a newer election.
const SILENCE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a replica waits for its primary to be there. Before that it must not be a candidate: after a full restart the
/// primary's file has everything, and a replica's may lack the end.
const PRIMARY_PATIENCE: Duration = Duration::from_secs(60);

/// What one Sentinel says of who is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It doesn't answer, or what it says makes no sense.
    Silent,
    /// It has never heard of a primary: its volume is new.
    Ignorant,
    /// It knows the election of this number, and the member who won it.
    Elected {
        /// The number.
        epoch: u64,
        /// The winner.
        member: usize,
    },
}

/// What one server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// It takes writes.
    pub primary: bool,
    /// It is a replica that Sentinels may elect: it has been in step with a primary once.
    pub promotable: bool,
    /// It is reading its file.
    pub loading: bool,
    /// Keys that it holds.
    pub keys: u64,
}

/// What a member sees when its server is about to begin.
#[derive(Clone, Debug)]
pub struct View {
    /// The member's own number.
    pub me: usize,
    /// Its volume holds what a primary held, or a full copy of that.
    pub holds_data: bool,
    /// What each member's Sentinel says, its own too.
    pub sentinels: Vec<Opinion>,
    /// What each member's server says; its own doesn't run yet.
    pub servers: Vec<Option<Server>>,
    /// For how long it has been waiting.
    pub waited: Duration,
}

/// What the server begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As primary.
    Primary,
    /// As replica of another member.
    ReplicaOf {
        /// The other member.
        primary: usize,
        /// Whether Sentinels may elect this one before it has been in step with that primary.
        promotable: bool,
    },
    /// Not yet.
    Wait(Reason),
}

/// Why a server doesn't begin yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The member's own Sentinel isn't up.
    OwnSentinelSilent,
    /// Too few Sentinels answer to believe any.
    TooFewSentinels,
    /// Nobody knows of a primary, and not all have been heard.
    NotAllHeard,
    /// Nobody knows of a primary, and the first member is about to become it.
    FirstPrimary,
    /// Nobody knows of a primary, but a server holds data.
    UnknownData,
    /// Two members won the same election, as only edited files can say.
    Disagreement,
    /// The primary isn't there.
    PrimaryAway,
    /// This is the primary and it has lost its data; another one is to be elected.
    DataLost,
    /// This was the primary, and its replicas are there; one of them is to be elected.
    GivingWay,
}

impl Reason {
    /// The reason in a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::OwnSentinelSilent => "the Sentinel of this pod doesn't answer yet",
            Reason::TooFewSentinels => "fewer than half of the Sentinels answer",
            Reason::NotAllHeard => "nobody knows of a primary, and not every Sentinel answers",
            Reason::FirstPrimary => "the first pod is about to become the primary",
            Reason::UnknownData => "nobody knows of a primary, but a server holds data",
            Reason::Disagreement => {
                "the Sentinels name two winners of one election; if that lasts, remove the wrong sentinel.conf"
            }
            Reason::PrimaryAway => "the primary isn't there",
            Reason::DataLost => "this pod was the primary and its volume is empty: the Sentinels elect another",
            Reason::GivingWay => "this pod was the primary and replicas are there: the Sentinels elect one of them",
        }
    }
}

/// What the server begins as.
pub fn decide(view: &View) -> Start {
    let members = view.sentinels.len();
    let heard = view.sentinels.iter().filter(|opinion| **opinion != Opinion::Silent).count();
    if view.sentinels.get(view.me).is_none_or(|own| *own == Opinion::Silent) {
        return Start::Wait(Reason::OwnSentinelSilent);
    }
    let elections = view.sentinels.iter().filter_map(|opinion| match opinion {
        Opinion::Elected { epoch, member } => Some((*epoch, *member)),
        Opinion::Silent | Opinion::Ignorant => None,
    });
    let others = || view.servers.iter().enumerate().filter(|(member, _)| *member != view.me).map(|(_, server)| server);
    let Some((epoch, primary)) = elections.clone().max() else {
        return match () {
            () if heard < members => Start::Wait(Reason::NotAllHeard),
            () if others().flatten().any(|server| server.primary || server.loading || server.keys > 0) => {
                Start::Wait(Reason::UnknownData)
            }
            () if view.me == 0 => Start::Primary,
            () => Start::Wait(Reason::FirstPrimary),
        };
    };
    if elections.clone().any(|(other, member)| other == epoch && member != primary) {
        return Start::Wait(Reason::Disagreement);
    }
    if heard * 2 <= members {
        return Start::Wait(Reason::TooFewSentinels);
    }
    if primary != view.me {
        let live = view.servers.get(primary).copied().flatten().is_some_and(|server| server.primary);
        return match (live, view.waited >= PRIMARY_PATIENCE) {
            (true, _) => Start::ReplicaOf { primary, promotable: false },
            // Without a candidate there would never be a primary again.
            (false, true) => Start::ReplicaOf { primary, promotable: view.holds_data },
            (false, false) => Start::Wait(Reason::PrimaryAway),
        };
    }
    if !view.holds_data {
        let empty = |server: &Server| !server.primary && !server.loading && server.keys == 0;
        return match others().all(|server| server.as_ref().is_some_and(empty)) {
            true => Start::Primary,
            false => Start::Wait(Reason::DataLost),
        };
    }
    if others().flatten().any(|server| server.primary || server.promotable) && view.waited < ELECTION_PATIENCE {
        return Start::Wait(Reason::GivingWay);
    }
    if heard < members && view.waited < SILENCE_PATIENCE {
        return Start::Wait(Reason::NotAllHeard);
    }
    Start::Primary
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: Opinion = Opinion::Elected { epoch: 1, member: 0 };
    const NEW: Opinion = Opinion::Elected { epoch: 2, member: 1 };
    const LONG: Duration = Duration::from_secs(3_600);

    fn view(me: usize, holds_data: bool, sentinels: [Opinion; 3], servers: [Option<Server>; 3]) -> View {
        View { me, holds_data, sentinels: sentinels.to_vec(), servers: servers.to_vec(), waited: Duration::ZERO }
    }

    fn primary() -> Option<Server> {
        Some(Server { primary: true, keys: 9, ..Server::default() })
    }

    fn replica() -> Option<Server> {
        Some(Server { promotable: true, keys: 9, ..Server::default() })
    }

    fn waited(view: View, waited: Duration) -> Start {
        decide(&View { waited, ..view })
    }

    #[test]
    fn the_first_pod_founds_the_group_once_everybody_is_known_to_be_new() {
        use Opinion::{Ignorant, Silent};
        assert_eq!(decide(&view(0, false, [Ignorant; 3], [None; 3])), Start::Primary);
        assert_eq!(decide(&view(1, false, [Ignorant; 3], [None; 3])), Start::Wait(Reason::FirstPrimary));
        let unheard = view(0, false, [Ignorant, Ignorant, Silent], [None; 3]);
        assert_eq!(waited(unheard, LONG), Start::Wait(Reason::NotAllHeard), "the silent one may have data");
        let founded = [Opinion::Elected { epoch: 0, member: 0 }, Ignorant, Ignorant];
        assert_eq!(
            decide(&view(1, false, founded, [primary(), None, None])),
            Start::ReplicaOf { primary: 0, promotable: false }
        );
        let stray = view(0, false, [Ignorant; 3], [None, replica(), None]);
        assert_eq!(waited(stray, LONG), Start::Wait(Reason::UnknownData));
    }

    #[test]
    fn after_a_full_restart_the_last_primary_is_primary_again_and_the_others_wait_for_it() {
        let all = [OLD, NEW, NEW];
        assert_eq!(decide(&view(1, true, all, [None; 3])), Start::Primary);
        assert_eq!(decide(&view(0, true, all, [None; 3])), Start::Wait(Reason::PrimaryAway));
        let live = [None, primary(), None];
        assert_eq!(decide(&view(0, true, all, live)), Start::ReplicaOf { primary: 1, promotable: false });
        // It is gone for good: the others may be elected, but for those that have nothing.
        assert_eq!(waited(view(0, true, all, [None; 3]), LONG), Start::ReplicaOf { primary: 1, promotable: true });
        assert_eq!(waited(view(2, false, all, [None; 3]), LONG), Start::ReplicaOf { primary: 1, promotable: false });
        // Not all are up: one of the silent may know of a newer election.
        let partly = view(1, true, [Opinion::Silent, NEW, NEW], [None; 3]);
        assert_eq!(decide(&partly), Start::Wait(Reason::NotAllHeard));
        assert_eq!(waited(partly, LONG), Start::Primary);
        let alone = view(1, true, [Opinion::Silent, NEW, Opinion::Silent], [None; 3]);
        assert_eq!(waited(alone, LONG), Start::Wait(Reason::TooFewSentinels));
    }

    #[test]
    fn a_primary_that_comes_back_gives_way_to_its_replicas_and_one_that_lost_its_data_for_ever() {
        let there = [None, replica(), replica()];
        let back = view(0, true, [OLD; 3], there);
        assert_eq!(decide(&back), Start::Wait(Reason::GivingWay));
        assert_eq!(waited(back, LONG), Start::Primary, "nobody could be elected");
        let never_in_step = Some(Server::default());
        assert_eq!(decide(&view(0, true, [OLD; 3], [None, never_in_step, None])), Start::Primary);
        assert_eq!(waited(view(0, false, [OLD; 3], there), LONG), Start::Wait(Reason::DataLost));
        assert_eq!(waited(view(0, false, [OLD; 3], [None; 3]), LONG), Start::Wait(Reason::DataLost));
        assert_eq!(decide(&view(0, false, [OLD; 3], [None, never_in_step, never_in_step])), Start::Primary);
    }

    fn opinion() -> impl Strategy<Value = Opinion> {
        prop_oneof![
            Just(Opinion::Silent),
            Just(Opinion::Ignorant),
            (0u64..4, 0usize..5).prop_map(|(epoch, member)| Opinion::Elected { epoch, member }),
        ]
    }

    fn server() -> impl Strategy<Value = Option<Server>> {
        let running = (any::<bool>(), any::<bool>(), any::<bool>(), 0u64..3);
        proptest::option::of(running.prop_map(|(primary, promotable, loading, keys)| Server {
            primary,
            promotable: promotable && !primary,
            loading,
            keys,
        }))
    }

    fn views() -> impl Strategy<Value = View> {
        (
            0usize..5,
            any::<bool>(),
            prop::collection::vec(opinion(), 5),
            prop::collection::vec(server(), 5),
            prop::sample::select(vec![0u64, 5, 15, 30, 90]),
        )
            .prop_map(|(me, holds_data, sentinels, servers, seconds)| View {
                me,
                holds_data,
                sentinels,
                servers,
                waited: Duration::from_secs(seconds),
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn an_empty_primary_never_begins_where_others_have_data(view in views()) {
            let view = View { holds_data: false, ..view };
            if decide(&view) == Start::Primary {
                let others = view.servers.iter().enumerate().filter(|(member, _)| *member != view.me);
                prop_assert!(others.filter_map(|(_, server)| *server).all(|server| server.keys == 0 && !server.primary));
                let newest = view.sentinels.iter().filter_map(|opinion| match opinion {
                    Opinion::Elected { epoch, member } => Some((*epoch, *member)),
                    _ => None,
                }).max();
                prop_assert!(newest.is_none_or(|(_, member)| member == view.me));
            }
        }

        #[test]
        fn of_all_who_see_the_same_at_most_one_begins_as_primary(view in views(), data in any::<[bool; 5]>()) {
            let primaries = (0..5)
                .filter(|me| decide(&View { me: *me, holds_data: data[*me], ..view.clone() }) == Start::Primary)
                .count();
            prop_assert!(primaries <= 1);
        }

        #[test]
        fn where_all_sentinels_agree_and_data_is_there_nobody_waits_for_ever(view in views(), epoch in 0u64..9, member in 0usize..5) {
            let agreed = View {
                sentinels: vec![Opinion::Elected { epoch, member }; 5],
                holds_data: true,
                waited: LONG,
                ..view
            };
            prop_assert!(!matches!(decide(&agreed), Start::Wait(_)));
        }
    }
}
