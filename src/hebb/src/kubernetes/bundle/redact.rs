//! Takes secrets out of what leaves the cluster: every value of a Secret that was read, wherever it stands, and what looks
//! like one.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use regex::Regex;
use serde_json::Value;

/// What stands in place of a secret.
const REDACTED: &str = "<redacted>";
/// A shorter value of a Secret is a word of any text, such as `true` or a user's name.
const VALUE_MIN: usize = 6;
/// Annotation in which kubectl repeats the object as somebody wrote it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Replaces secrets.
pub struct Redactor {
    values: Vec<String>,
    shapes: Vec<Regex>,
    names: Regex,
}

impl Redactor {
    /// One that knows these values.
    ///
    /// # Errors
    /// An expression of this file that isn't one.
    pub fn new(secrets: &[Vec<u8>]) -> Result<Self, regex::Error> {
        let mut values = BTreeSet::new();
        for secret in secrets {
            let text = String::from_utf8_lossy(secret);
            // Of a text of several lines each is a secret: a log shows one at a time.
            let parts = text.lines().map(str::trim).chain([text.trim()]).filter(|part| part.len() >= VALUE_MIN);
            for part in parts {
                values.insert(part.to_owned());
                values.insert(escaped(part));
                values.extend(base64(part.as_bytes()));
            }
            values.extend(base64(secret).filter(|_| secret.len() >= VALUE_MIN));
        }
        let mut values: Vec<String> = values.into_iter().collect();
        // The longest first, as one may be part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let shapes = [
            r"(?P<kept>(?i:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}",
            r"(?P<kept>[a-z][a-z0-9+.-]*://)[^/\s@]+@",
            r"(?P<kept>)hebb_[0-9a-f]{16,}",
            r#"(?P<kept>(?i:password|passwd|secret|token|api[_-]?key)["']?\s*[=:]\s*["']?)[^\s"',;}]{4,}"#,
        ];
        let names = Regex::new(r"(?i)(password|passwd|token|secret|credential|api_?key|authorization|routing_?key)")?;
        Ok(Self { values, shapes: shapes.into_iter().map(Regex::new).collect::<Result<_, _>>()?, names })
    }

    /// A text, such as a log.
    pub fn text(&self, text: &str) -> String {
        let mut text = self.known(text);
        for shape in &self.shapes {
            text = shape.replace_all(&text, format!("${{kept}}{REDACTED}")).into_owned();
        }
        text
    }

    fn known(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in self.values.iter() {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), REDACTED);
            }
        }
        text
    }

    /// An object of Kubernetes.
    pub fn object(&self, object: &mut Value) {
        if object["kind"] == "Secret" {
            for field in ["data", "stringData"] {
                if let Some(data) = object.get_mut(field).and_then(Value::as_object_mut) {
                    data.values_mut().for_each(|value| *value = Value::from(REDACTED));
                }
            }
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
            }
        }
        self.value(object);
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                // A variable of a container, or a header: a name, and a value that may be secret.
                let is_secret_pair =
                    fields.get("name").and_then(Value::as_str).is_some_and(|name| self.names.is_match(name));
                for (name, field) in fields.iter_mut() {
                    let is_secret = match name.as_str() {
                        "value" => is_secret_pair,
                        // A reference says where a secret is, and the name of one is none.
                        name if name.ends_with("Name") || name.ends_with("Ref") => false,
                        name => self.names.is_match(name),
                    };
                    match field {
                        Value::String(text) if is_secret && !text.is_empty() => *text = REDACTED.to_owned(),
                        Value::Object(headers) if name == "headers" => {
                            headers.values_mut().for_each(|header| *header = Value::from(REDACTED));
                        }
                        // Whoever knows the address of a webhook may post to it.
                        Value::String(url) if name == "url" => *url = host_of(url),
                        field => self.value(field),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A URL without what follows its host, and without a user.
fn host_of(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return REDACTED.to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{REDACTED}")
}

/// As it stands in JSON.
fn escaped(text: &str) -> String {
    Value::from(text).to_string().trim_matches('"').to_owned()
}

fn base64(bytes: &[u8]) -> impl Iterator<Item = String> {
    let encoded = serde_json::to_value(ByteString(bytes.to_vec())).ok();
    // Without padding too: as a part of something longer it has none.
    encoded.as_ref().and_then(Value::as_str).map(|text| text.trim_end_matches('=').to_owned()).into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(&[
            b"correct horse \"battery\"".to_vec(),
            b"line-one-secret\nline-two-secret\n".to_vec(),
            b"true".to_vec(),
        ])
        .unwrap()
    }

    #[test]
    fn a_known_value_is_nowhere_left_in_whatever_form() {
        let known = redactor();
        for text in [
            "the password is correct horse \"battery\".",
            r#"{"p": "correct horse \"battery\""}"#,
            "Y29ycmVjdCBob3JzZSAiYmF0dGVyeSI=",
            "only line-two-secret here",
        ] {
            let left = known.text(text);
            assert!(left.contains(REDACTED), "{text} → {left}");
            assert!(!left.contains("battery") && !left.contains("two-secret"), "{left}");
        }
        assert_eq!(known.text("it is true"), "it is true", "a word is no secret");
    }

    #[test]
    fn what_looks_like_a_secret_goes_too() {
        let known = redactor();
        for (text, wanted) in [
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer <redacted>"),
            ("redis://user:pw@host:6379", "redis://<redacted>host:6379"),
            ("key hebb_0123456789abcdef0123", "key <redacted>"),
            ("password=hunter22 next", "password=<redacted> next"),
            (r#"{"token":"abcdef"}"#, r#"{"token":"<redacted>"}"#),
        ] {
            assert_eq!(known.text(text), wanted);
        }
    }

    #[test]
    fn objects_keep_their_shape_and_lose_their_secrets() {
        let mut object = json!({
            "kind": "Secret", "metadata": {"name": "s", "managedFields": [1], "annotations": {LAST_APPLIED: "x", "a": "b"}},
            "data": {"password": "aaaa"}, "type": "Opaque",
        });
        redactor().object(&mut object);
        assert_eq!(
            object,
            json!({"kind": "Secret", "metadata": {"name": "s", "annotations": {"a": "b"}},
                "data": {"password": REDACTED}, "type": "Opaque"})
        );
        let mut object = json!({"kind": "Pod", "spec": {
            "env": [{"name": "MY_TOKEN", "value": "t"}, {"name": "PORT", "value": "80"},
                {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}}],
            "webhook": {"url": "https://u:p@hooks.example/T0/B0?x=1", "headers": {"X": "y"}, "routingKey": "k"},
            "secretName": "s", "authorizationSecretRef": {"name": "n", "key": "k"},
        }});
        redactor().object(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["env"][0]["value"], REDACTED);
        assert_eq!(spec["env"][1]["value"], "80");
        assert_eq!(spec["env"][2]["valueFrom"]["secretKeyRef"], json!({"name": "s", "key": "password"}));
        assert_eq!(
            spec["webhook"],
            json!({"url": "https://hooks.example/<redacted>", "headers": {"X": REDACTED}, "routingKey": REDACTED})
        );
        assert_eq!((spec["secretName"].as_str(), &spec["authorizationSecretRef"]["name"]), (Some("s"), &json!("n")));
    }
}
