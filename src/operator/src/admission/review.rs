//! What the API server asks and is answered: `AdmissionReview` of `admission.k8s.io/v1`, as far as it is needed.

use hebb_api::names;
use serde::Deserialize;
use serde_json::{Value, json};

use super::verdict::Verdict;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What isn't a review.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the body is no AdmissionReview: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("{API_VERSION} {KIND} is known here, not {0:?}")]
    Version(String),
    #[error("request.{0} is missing")]
    Missing(&'static str),
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LearningCluster,
    AlertPolicy,
    /// Nothing that anybody here knows about.
    Other,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::LearningCluster => "LearningCluster",
            Kind::AlertPolicy => "AlertPolicy",
            Kind::Other => "Other",
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    /// It goes, or is connected to: nobody here has a say in that.
    Other,
}

/// One question of the API server.
#[derive(Clone, Debug)]
pub struct Review {
    uid: String,
    pub kind: Kind,
    pub operation: Operation,
    /// Empty where the object has none.
    pub namespace: String,
    /// As it is to be stored.
    pub object: Value,
    /// As it is stored; null for a new one.
    pub former: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    uid: String,
    kind: Option<GroupKind>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct GroupKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    kind: String,
}

impl Review {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Malformed`] for what isn't a review.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let envelope: Envelope = serde_json::from_slice(body)?;
        if (envelope.api_version.as_str(), envelope.kind.as_str()) != (API_VERSION, KIND) {
            return Err(Malformed::Version(format!("{} {}", envelope.api_version, envelope.kind)));
        }
        let request = envelope.request.ok_or(Malformed::Missing("uid"))?;
        if request.uid.is_empty() {
            return Err(Malformed::Missing("uid"));
        }
        let kind = request.kind.ok_or(Malformed::Missing("kind"))?;
        let kind = match (kind.group.as_str(), kind.kind.as_str()) {
            (names::GROUP, "LearningCluster") => Kind::LearningCluster,
            (names::GROUP, "AlertPolicy") => Kind::AlertPolicy,
            _ => Kind::Other,
        };
        let operation = match request.operation.as_str() {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            _ => Operation::Other,
        };
        let judged = kind != Kind::Other && operation != Operation::Other;
        if judged && !request.object.is_object() {
            return Err(Malformed::Missing("object"));
        }
        if judged && operation == Operation::Update && !request.old_object.is_object() {
            return Err(Malformed::Missing("oldObject"));
        }
        let (object, former) = (request.object, request.old_object);
        Ok(Self { uid: request.uid, kind, operation, namespace: request.namespace, object, former })
    }

    /// The object's name, or what it begins with.
    pub fn name(&self) -> &str {
        let metadata = &self.object["metadata"];
        metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default()
    }

    /// The answer in the API server's form.
    pub fn answered(&self, verdict: &Verdict) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": verdict.refusal.is_none()});
        if let Some(message) = &verdict.refusal {
            response["status"] = json!({"code": 422, "reason": "Invalid", "message": message});
        }
        if !verdict.warnings.is_empty() {
            response["warnings"] = json!(verdict.warnings);
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_review_is_said_to_be_none() {
        let asked = |request: Value| json!({"apiVersion": API_VERSION, "kind": KIND, "request": request}).to_string();
        let kind = json!({"group": "hebb.dev", "version": "v1alpha1", "kind": "LearningCluster"});
        for (body, said) in [
            ("{".to_owned(), "the body is no AdmissionReview"),
            ("[]".to_owned(), "the body is no AdmissionReview"),
            ("{}".to_owned(), "is known here"),
            (json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": KIND}).to_string(), "v1beta1"),
            (asked(Value::Null), "request.uid"),
            (asked(json!({"uid": "u"})), "request.kind"),
            (asked(json!({"uid": "u", "kind": kind, "operation": "CREATE"})), "request.object"),
            (asked(json!({"uid": "u", "kind": kind, "operation": "UPDATE", "object": {}})), "request.oldObject"),
        ] {
            let error = Review::read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{body}: {error}");
        }
    }

    #[test]
    fn an_answer_names_the_question() {
        let body = json!({"apiVersion": API_VERSION, "kind": KIND, "request": {
            "uid": "u1", "kind": {"group": "apps", "kind": "Deployment"}, "operation": "DELETE",
        }});
        let review = Review::read(body.to_string().as_bytes()).unwrap();
        assert_eq!((review.kind, review.operation), (Kind::Other, Operation::Other));
        let allowed = review.answered(&Verdict::default());
        assert_eq!(allowed["response"], json!({"uid": "u1", "allowed": true}));
        let refused = review.answered(&Verdict { refusal: Some("no".to_owned()), warnings: vec!["w".to_owned()] });
        assert_eq!(refused["response"]["status"]["message"], "no");
        assert_eq!((&refused["response"]["allowed"], &refused["response"]["warnings"]), (&json!(false), &json!(["w"])));
    }
}
