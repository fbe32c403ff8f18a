//! A part of `make faults` that is quick enough for every day: the operator is killed before and after every sixth write while
//! it makes a cluster.

use std::sync::Arc;

use hebb_chaos::run::World;
use hebb_chaos::suite::{Selection, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_changes_nothing_in_the_end() {
    let world = Arc::new(World::start(env!("CARGO_BIN_EXE_hebb").into()).await.unwrap());
    let selection = Selection {
        workloads: vec!["apply".to_owned()],
        stride: 6,
        parallel: 6,
        silence: 2,
        only_crashes: true,
        mutants: false,
    };
    let folder = tempfile::tempdir().unwrap();
    let report = run(world, &selection, folder.path()).await.unwrap();
    assert!(report.plans >= 8, "{report:?}");
    assert_eq!(report.red, 0, "{:#?}", report.findings);
}
