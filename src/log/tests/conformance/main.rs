//! Both stores against the one suite, Redis for real; then what is particular to each: outages, reopening, a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is how a test fails, its helpers too"
)]

mod certificates;
mod failover;
mod fallback;
mod fleet;
mod full;
mod large;
mod model;
mod outage;
mod pieces;
mod reopen;
mod server;

mod redis {
    use std::sync::LazyLock;

    use crate::server::Server;

    /// One server for all: each test has a cluster of its own in it.
    static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("everysec"));

    macro_rules! on_redis {
        ($($name:ident,)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let store = SERVER.store(stringify!($name)).await;
                hebb_log::conformance::$name(&store).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_redis);

    macro_rules! history_on_redis {
        ($($name:ident,)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let store = SERVER.store(stringify!($name)).await;
                hebb_log::conformance::$name(&store, &store).await.unwrap();
            }
        )*};
    }
    hebb_log::history_suite!(history_on_redis);
}

mod sqlite {
    use hebb_log::{LocalStore, SqliteHistory};

    macro_rules! history_on_sqlite {
        ($($name:ident,)*) => {$(
            #[tokio::test]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let history = SqliteHistory::open(directory.path()).await.unwrap();
                hebb_log::conformance::$name(&history, &LocalStore::in_memory().unwrap()).await.unwrap();
            }
        )*};
    }
    hebb_log::history_suite!(history_on_sqlite);
}

/// The suite on servers that elect their primary, at the durability that only they have.
macro_rules! on_fleet {
    ($dollar:tt $module:ident, $fleet:expr) => {
        mod $module {
            use std::sync::LazyLock;
            use std::time::Duration;

            use hebb_log::{Durability, LogError};

            use crate::fleet::Fleet;

            const ATTEMPTS: usize = 5;

            /// Nothing is lost here, so a process that has to wait for its turn shouldn't look as if it were.
            const PATIENT: Duration = Duration::from_secs(10);
            static FLEET: LazyLock<Fleet> = LazyLock::new(|| $fleet);

            macro_rules! on_this_fleet {
                        ($dollar($dollar name:ident,)*) => {$dollar(
                            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                            async fn $dollar name() {
                                // Twenty-odd processes take turns on this machine, and one that waits too long for the others
                                // is unavailable, as it should be. So each function may begin anew, but not for ever.
                                for attempt in 0..ATTEMPTS {
                                    let cluster = format!("{}-{attempt}", stringify!($dollar name));
                                    let store = FLEET.store(&cluster, Durability::Replicated { replicas: 1 }).await;
                                    match hebb_log::conformance::$dollar name(&store).await {
                                        Err(LogError::Unavailable(error)) => println!("attempt {attempt}: {error}"),
                                        done => return done.unwrap(),
                                    }
                                }
                                panic!("unavailable {ATTEMPTS} times");
                            }
                        )*};
                    }
            hebb_log::conformance_suite!(on_this_fleet);

            macro_rules! history_on_this_fleet {
                        ($dollar($dollar name:ident,)*) => {$dollar(
                            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                            async fn $dollar name() {
                                for attempt in 0..ATTEMPTS {
                                    let cluster = format!("{}-{attempt}", stringify!($dollar name));
                                    let store = FLEET.store(&cluster, Durability::Replicated { replicas: 1 }).await;
                                    match hebb_log::conformance::$dollar name(&store, &store).await {
                                        Err(LogError::Unavailable(error)) => println!("attempt {attempt}: {error}"),
                                        done => return done.unwrap(),
                                    }
                                }
                                panic!("unavailable {ATTEMPTS} times");
                            }
                        )*};
                    }
            hebb_log::history_suite!(history_on_this_fleet);
        }
    };
}
on_fleet!($ sentinel, Fleet::sentinel(PATIENT, false));
on_fleet!($ sentinel_with_tls, Fleet::sentinel(PATIENT, true));
on_fleet!($ cluster, Fleet::cluster(PATIENT, false));
on_fleet!($ cluster_with_tls, Fleet::cluster(PATIENT, true));

mod directory {
    use hebb_log::{LocalConfig, LocalStore};

    macro_rules! on_directory {
        ($($name:ident,)*) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let store = LocalStore::open(directory.path(), LocalConfig::default()).await.unwrap();
                hebb_log::conformance::$name(&store).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_directory);
}

mod memory {
    macro_rules! on_memory {
        ($($name:ident,)*) => {$(
            #[tokio::test]
            async fn $name() {
                hebb_log::conformance::$name(&hebb_log::LocalStore::in_memory().unwrap()).await.unwrap();
            }
        )*};
    }
    hebb_log::conformance_suite!(on_memory);
}
