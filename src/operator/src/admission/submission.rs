//! What is to be judged of a review: an object that is new, or whose spec changes.

use hebb_alert::Policy;
use hebb_api::{AlertPolicy, LearningCluster, load};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::review::{Kind, Operation, Review};

/// Stands for what the API server adds to `generateName`.
const GENERATED: &str = "00000";

/// An object that somebody submits.
pub enum Subject {
    Cluster(Box<LearningCluster>),
    Policy(Box<AlertPolicy>),
    /// One that the definition takes and this version's types can't read, as a newer or older version might; why.
    Unreadable(String),
}

impl Subject {
    fn read(kind: Kind, namespace: &str, object: &Value) -> Self {
        fn typed<K: DeserializeOwned>(object: Value) -> Result<Box<K>, String> {
            serde_json::from_value(object).map_err(|error| error.to_string())
        }
        let mut metadata = object["metadata"].clone();
        metadata["namespace"] = json!(namespace);
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            let beginning = metadata["generateName"].as_str().unwrap_or_default();
            metadata["name"] = json!(format!("{beginning}{GENERATED}"));
        }
        // The status is the operator's own affair.
        let object = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "spec": object["spec"],
        });
        let read = match kind {
            Kind::AlertPolicy => typed(object).map(Self::Policy),
            Kind::LearningCluster | Kind::Other => typed(object).map(Self::Cluster),
        };
        read.unwrap_or_else(Self::Unreadable)
    }

    /// What is wrong with it by itself, each with the place in the object.
    fn problems(&self) -> Vec<String> {
        match self {
            Self::Cluster(cluster) => load::cluster_problems(cluster),
            Self::Policy(policy) => {
                let namespace = policy.namespace().unwrap_or_default();
                Policy::new(&namespace, &policy.name_any(), &policy.spec).err().unwrap_or_default()
            }
            Self::Unreadable(_) => Vec::new(),
        }
    }
}

/// What is to be judged.
pub struct Submission {
    pub subject: Subject,
    /// Nothing of this object is there yet.
    pub is_new: bool,
    /// What is wrong with it that wasn't before.
    pub problems: Vec<String>,
    /// What was wrong with it before, and still is.
    pub standing: Vec<String>,
}

impl Submission {
    /// What there is to judge; nothing where an object goes, or where its spec stays: labels, annotations, finalizers and
    /// owners of an object that could never work can be changed, and it can be deleted.
    pub fn of(review: &Review) -> Option<Self> {
        let is_new = match review.operation {
            Operation::Create => true,
            Operation::Update => false,
            Operation::Other => return None,
        };
        let goes = !review.object["metadata"]["deletionTimestamp"].is_null();
        let same = !is_new && review.object["spec"] == review.former["spec"];
        if review.kind == Kind::Other || goes || same {
            return None;
        }
        let subject = Subject::read(review.kind, &review.namespace, &review.object);
        // Of one that couldn't be read nobody knows what was wrong.
        let before = match (is_new, Subject::read(review.kind, &review.namespace, &review.former)) {
            (true, _) => Some(Vec::new()),
            (false, Subject::Unreadable(_)) => None,
            (false, former) => Some(former.problems()),
        };
        let was_there = |problem: &String| before.as_ref().is_none_or(|before| before.contains(problem));
        let (standing, problems) = subject.problems().into_iter().partition(was_there);
        Some(Self { subject, is_new, problems, standing })
    }
}
