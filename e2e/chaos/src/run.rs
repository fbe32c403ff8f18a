//! Runs one plan: a workload with a fault, in a namespace of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::fault::{Fault, Mutant};
use crate::journal::{Journal, Write};
use crate::operator::Operator;
use crate::oracle::{Dump, Reference, Seen, dump, judge};
use crate::plane::Plane;
use crate::proxy::Shared;
use crate::stand_in::{CLUSTER, Coordinators, StandIn, api};
use crate::workload::{self, Goal, Step, Workload};

/// How long a step may take to its goal: the longest wait after failures in a row within it is sixteen seconds.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Nothing was written for so long, and the operator has led for as long: it is done. Longer than the three seconds after
/// which a cluster that isn't ready is looked at again would be too long for every step, shorter than the time that a
/// restarted operator needs for its first pass too short.
const QUIET: Duration = Duration::from_millis(2_500);
const LOOK: Duration = Duration::from_millis(250);

/// A plan. As a file it is all that is needed to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The workload's name.
    pub workload: String,
    /// The harm.
    pub fault: Fault,
    /// A planted bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<Mutant>,
    /// Seconds at the end in which nothing must be written.
    pub silence: u64,
}

impl Plan {
    /// A short name.
    pub fn name(&self) -> String {
        let fault = serde_json::to_value(self.fault).unwrap_or_default();
        let words = ["kind", "write", "milliseconds"].map(|field| match &fault[field] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => format!("-{text}"),
            number => format!("-{number}"),
        });
        let mutant = self.mutant.map(|mutant| format!("-{mutant:?}")).unwrap_or_default();
        format!("{}{}{mutant}", self.workload, words.concat())
    }
}

/// What plans share.
pub struct World {
    plane: Plane,
    client: Client,
    binary: PathBuf,
    coordinators: Coordinators,
    coordinators_url: String,
    folder: tempfile::TempDir,
    plans: AtomicUsize,
}

/// What was seen of a plan.
pub struct Outcome {
    /// What it left.
    pub lines: Dump,
    /// What was written.
    pub writes: Vec<Write>,
    /// Whether the fault happened.
    pub fired: bool,
    /// How many lines of the journal there were when it had settled.
    pub settled_at: usize,
    /// What is left of a deleted cluster.
    pub left: Vec<String>,
    /// Why it never settled.
    pub stuck: Option<String>,
    /// What was wrong with the process.
    pub troubles: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What the oracles find.
    pub fn judge(&self, plan: &Plan, reference: &Reference) -> Vec<String> {
        let mut findings = judge(
            reference,
            &Seen {
                lines: &self.lines,
                writes: &self.writes,
                settled_at: self.settled_at,
                left: &self.left,
                troubles: &self.troubles,
                comparable: !plan.fault.deletes_owner(),
                crash: plan.fault.is_crash(),
            },
        );
        findings
            .extend(self.stuck.iter().map(|stuck| format!("O8 not settled within {} s: {stuck}", STEP_MAX.as_secs())));
        findings
    }
}

impl World {
    /// An API server, and the binary that is tested.
    pub async fn start(binary: PathBuf) -> Result<Self, Error> {
        let plane = Plane::start().await?;
        let client = plane.client().await?;
        let coordinators = Coordinators::default();
        let coordinators_url = coordinators.serve().await?;
        let folder = tempfile::tempdir()?;
        Ok(Self { plane, client, binary, coordinators, coordinators_url, folder, plans: AtomicUsize::new(0) })
    }

    /// Runs a plan.
    pub async fn run(&self, plan: &Plan) -> Result<Outcome, Error> {
        let workload = workload::find(&plan.workload).ok_or_else(|| format!("no workload '{}'", plan.workload))?;
        let namespace = self.namespace().await?;
        let folder = self.folder.path().join(&namespace);
        std::fs::create_dir(&folder)?;
        let player = StandIn::new(self.client.clone(), &namespace, self.coordinators.clone());
        let playing = tokio::spawn(player.run());
        let shared = Arc::new(Shared {
            client: self.plane.client().await?,
            namespace: namespace.clone(),
            cluster: workload::NAME,
            journal: Journal::default(),
            fault: plan.fault,
            mutant: plan.mutant,
            fired: AtomicBool::new(false),
            planted: AtomicBool::new(false),
        });
        let operator = Operator::start(&self.binary, folder, &self.coordinators_url, shared.clone());
        let mut run = Run { world: self, namespace: &namespace, shared: &shared, operator: &operator, uid: None };
        let began = Instant::now();
        let stuck = run.workload(&workload).await?;
        let settled_at = shared.journal.writes().len();
        let mut left = Vec::new();
        if stuck.is_none() {
            tokio::time::sleep(Duration::from_secs(plan.silence)).await;
            if run.is_gone(&workload) {
                left = workload::left(&self.client, &namespace, run.uid.as_deref()).await?;
            }
        }
        let lines = dump(&self.client, &namespace).await?;
        let troubles = operator.end().await;
        playing.abort();
        self.coordinators.forget(&namespace);
        Ok(Outcome {
            lines,
            writes: shared.journal.writes(),
            fired: shared.fired.load(Ordering::SeqCst),
            settled_at,
            left,
            stuck,
            troubles,
            took: began.elapsed(),
        })
    }

    async fn namespace(&self) -> Result<String, Error> {
        let number = self.plans.fetch_add(1, Ordering::SeqCst);
        // A name that is no part of any other word, so that it can be made equal in dumps.
        let name = format!("plan-{number:04}-namespace");
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let made = Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        // Admission asks for it, and the controller that makes it doesn't run.
        let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name);
        accounts.create(&PostParams::default(), &account).await?;
        Ok(made.name_any())
    }
}

struct Run<'a> {
    world: &'a World,
    namespace: &'a str,
    shared: &'a Shared,
    operator: &'a Operator,
    uid: Option<String>,
}

impl Run<'_> {
    /// Why the workload never came to its end, or nothing.
    async fn workload(&mut self, workload: &Workload) -> Result<Option<String>, Error> {
        for (step, goal) in &workload.before {
            if let Some(stuck) = self.step(step, *goal).await? {
                return Ok(Some(format!("{step:?} before any fault: {stuck}")));
            }
        }
        self.shared.journal.arm();
        for (step, goal) in &workload.steps {
            if let Some(stuck) = self.step(step, *goal).await? {
                return Ok(Some(format!("{step:?}: {stuck}")));
            }
            if self.is_deleted() {
                break;
            }
        }
        Ok(None)
    }

    /// Whether the fault has deleted the cluster.
    fn is_deleted(&self) -> bool {
        self.shared.fault.deletes_owner() && self.shared.fired.load(Ordering::SeqCst)
    }

    fn is_gone(&self, workload: &Workload) -> bool {
        self.is_deleted() || workload.steps.last().is_some_and(|(_, goal)| *goal == Goal::Gone)
    }

    async fn step(&mut self, step: &Step, goal: Goal) -> Result<Option<String>, Error> {
        let client = &self.world.client;
        let hands = StandIn::new(client.clone(), self.namespace, self.world.coordinators.clone());
        step.take(client, self.namespace, &hands).await?;
        let began = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(cluster) = api(client, self.namespace, CLUSTER).get_opt(workload::NAME).await? {
                self.uid = cluster.uid();
            }
            let goal = if self.is_deleted() { Goal::Gone } else { goal };
            let missing = match self.is_quiet(began) {
                true => goal.missing(client, self.namespace).await?,
                false => Some("it still writes".to_owned()),
            };
            match missing {
                None => return Ok(None),
                Some(missing) if began.elapsed() > STEP_MAX => return Ok(Some(missing)),
                Some(_) => {}
            }
        }
    }

    /// Whether the operator has been silent since the step, its last write and its last start.
    fn is_quiet(&self, began: Instant) -> bool {
        began.elapsed() >= QUIET
            && self.shared.journal.quiet_for() >= QUIET
            && self.shared.journal.leads_for(self.operator.starts()).is_some_and(|leads| leads >= QUIET)
    }
}
