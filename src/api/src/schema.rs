//! Checks a value against the schema of a definition, as the API server would.
//!
//! The rules that a schema has in CEL (`x-kubernetes-validations`) are written out in `load` and `alert_policy::problems`.

use regex::bytes::RegexBuilder;
use serde_json::Value;

/// RFC 3339, as `format: date-time` is checked.
const DATE_TIME: &str = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$";

/// Drops the fields that say nothing where the schema has a default, as the API server does.
pub(crate) fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Array(members) => members.iter_mut().for_each(|member| drop_nulls(&schema["items"], member)),
        Value::Object(fields) => fields.retain(|name, field| {
            let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
            drop_nulls(schema, field);
            !field.is_null() || schema["nullable"] == true || schema.get("default").is_none()
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the schema forbids about `value`, which stands at `place`.
pub(crate) fn problems(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if value.is_null() && schema["nullable"] == true {
        return Vec::new();
    }
    if let Some(problem) = of_its_own(schema, value) {
        return vec![format!("{place}: {problem}")];
    }
    match value {
        Value::Array(members) => {
            let members = members.iter().enumerate();
            members
                .flat_map(|(index, member)| problems(&schema["items"], member, &format!("{place}[{index}]")))
                .collect()
        }
        Value::Object(fields) => {
            let of_field = |(name, field): (&String, &Value)| {
                let named = schema["properties"].get(name);
                problems(named.unwrap_or(&schema["additionalProperties"]), field, &format!("{place}.{name}"))
            };
            fields.iter().flat_map(of_field).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// What is wrong with a value itself; its members and fields are passed over.
fn of_its_own(schema: &Value, value: &Value) -> Option<String> {
    of_type(schema, value).or_else(|| one_of(schema, value)).or_else(|| match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            within(number, (&schema["minimum"], &schema["maximum"]), "must be", "")
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            within(length, (&schema["minLength"], &schema["maxLength"]), "must have", " characters")
                .or_else(|| of_form(schema, text))
        }
        Value::Array(members) => {
            within(members.len() as f64, (&schema["minItems"], &schema["maxItems"]), "must have", " members")
                .or_else(|| twice(schema, members))
        }
        Value::Object(fields) => {
            let count = fields.len() as f64;
            within(count, (&schema["minProperties"], &schema["maxProperties"]), "must have", " fields").or_else(|| {
                let mut required = schema["required"].as_array()?.iter().filter_map(Value::as_str);
                // What has a default is filled in before it is missed.
                let is_missing =
                    |name: &&str| !fields.contains_key(*name) && schema["properties"][*name].get("default").is_none();
                required.find(is_missing).map(|name| format!("{name} is needed"))
            })
        }
        Value::Null | Value::Bool(_) => None,
    })
}

fn of_type(schema: &Value, value: &Value) -> Option<String> {
    let is_whole = value.is_i64() || value.is_u64();
    let (fits, wanted) = match schema["type"].as_str() {
        Some("integer") if schema["format"] == "int32" => {
            (value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()), "a whole number of 32 bits")
        }
        Some("integer") => (is_whole, "a whole number"),
        Some("number") => (value.is_number(), "a number"),
        Some("string") => (value.is_string(), "text"),
        Some("boolean") => (value.is_boolean(), "true or false"),
        Some("array") => (value.is_array(), "a list"),
        Some("object") => (value.is_object(), "an object"),
        _ if schema["x-kubernetes-int-or-string"] == true => (is_whole || value.is_string(), "a whole number or text"),
        _ => return None,
    };
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    (!fits).then(|| format!("must be {wanted}, not {found}"))
}

fn one_of(schema: &Value, value: &Value) -> Option<String> {
    let allowed = schema["enum"].as_array().filter(|allowed| !allowed.contains(value))?;
    let allowed: Vec<String> =
        allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    Some(format!("must be one of {}", allowed.join(", ")))
}

/// Whether a number, or a count of `things`, lies within bounds that may be missing.
fn within(number: f64, (min, max): (&Value, &Value), must: &str, things: &str) -> Option<String> {
    let (min, max) = (min.as_f64(), max.as_f64());
    if min.is_none_or(|min| min <= number) && max.is_none_or(|max| number <= max) {
        return None;
    }
    Some(match (min, max) {
        (Some(min), Some(max)) if things.is_empty() => format!("{must} between {min} and {max}"),
        (Some(min), Some(max)) => format!("{must} {min} to {max}{things}"),
        (Some(min), None) => format!("{must} at least {min}{things}"),
        (None, max) => format!("{must} at most {}{things}", max.unwrap_or(f64::INFINITY)),
    })
}

fn of_form(schema: &Value, text: &str) -> Option<String> {
    if schema["format"] == "date-time" && !matches(DATE_TIME, text) {
        return Some("must be a time such as 2030-01-31T08:00:00Z".to_owned());
    }
    let pattern = schema["pattern"].as_str().filter(|pattern| !matches(pattern, text))?;
    Some(format!("must match {pattern}"))
}

/// Go's expressions, which the API server has, know the classes of ASCII only. A pattern that can't be read matches nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let compiled = RegexBuilder::new(pattern).unicode(false).build();
    compiled.is_ok_and(|pattern| pattern.is_match(text.as_bytes()))
}

/// A list with keys has no two members with the same.
fn twice(schema: &Value, members: &[Value]) -> Option<String> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let key = |member: &Value| keys.iter().map(|key| member[key.as_str().unwrap_or_default()].clone()).collect();
    let all: Vec<Vec<Value>> = members.iter().map(key).collect();
    let (index, again) = all.iter().enumerate().find(|(index, key)| all[..*index].contains(key))?;
    let shown: Vec<String> = again.iter().map(Value::to_string).collect();
    Some(format!("member {index}, {}, is there twice", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::crd::spec_schema;
    use crate::load::load;

    /// Checked here.
    const CHECKED: [&str; 19] = [
        "type",
        "format",
        "nullable",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "items",
        "minProperties",
        "maxProperties",
        "properties",
        "additionalProperties",
        "required",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
    ];
    /// Forbid nothing, or nothing that isn't forbidden elsewhere: rules in CEL, and fields that no type has.
    const PASSED_OVER: [&str; 5] = [
        "default",
        "description",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];

    fn each(schema: &Value, see: &mut dyn FnMut(&Value)) {
        see(schema);
        let named = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
        for below in named.chain(schema.get("items")).chain(schema.get("additionalProperties")) {
            each(below, see);
        }
    }

    #[test]
    fn every_keyword_of_the_definitions_is_known() {
        for crd in crate::crds() {
            let mut used = BTreeSet::new();
            each(&spec_schema(&crd), &mut |schema| {
                used.extend(schema.as_object().unwrap().keys().cloned());
                let list = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
                assert!(matches!(list, None | Some("map" | "atomic")), "a list is a {list:?}");
                let format = schema.get("format").and_then(Value::as_str);
                assert!(matches!(format, None | Some("int32" | "int64" | "double" | "date-time")), "{format:?}");
                let pattern = schema["pattern"].as_str().unwrap_or_default();
                assert!(RegexBuilder::new(pattern).unicode(false).build().is_ok(), "{pattern} is no pattern here");
            });
            let known: BTreeSet<String> = CHECKED.iter().chain(&PASSED_OVER).map(|name| (*name).to_owned()).collect();
            assert!(used.contains("minimum") && used.is_subset(&known), "{:?}", used.difference(&known));
        }
    }

    /// Something that a schema allows, as far as its own bounds go.
    fn good(schema: &Value) -> Value {
        if let Some(first) = schema["enum"].as_array().and_then(|allowed| allowed.first()) {
            return first.clone();
        }
        match schema["type"].as_str() {
            Some("object") => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                required.map(|name| (name.to_owned(), good(&schema["properties"][name]))).collect()
            }
            Some("array") => {
                let least = schema["minItems"].as_u64().unwrap_or(0);
                (0..least).map(|_| good(&schema["items"])).collect()
            }
            Some("integer" | "number") => schema.get("minimum").or(schema.get("maximum")).cloned().unwrap_or(json!(1)),
            Some("boolean") => json!(true),
            _ => json!(
                ["x", "1s", "http://a:1", "08:00", "1Gi", "0 0 * * *", "a.hebb", "a:1", "2030-01-31T08:00:00Z"]
                    .into_iter()
                    .find(|text| problems(schema, &json!(text), "").is_empty())
                    .unwrap_or("x")
            ),
        }
    }

    /// Values that break one bound of a schema each, with the name of the bound.
    fn bad(schema: &Value) -> Vec<(String, Value)> {
        let mut broken = Vec::new();
        let number = |name: &str| schema[name].as_f64();
        let count = |name: &str| schema[name].as_u64().map(|count| count as usize);
        let wrong_type = if schema["type"] == "string" { json!({}) } else { json!("!! ") };
        if schema.get("type").is_some() {
            broken.push(("type", wrong_type));
        } else if schema["x-kubernetes-int-or-string"] == true {
            broken.push(("x-kubernetes-int-or-string", json!([])));
        }
        if schema.get("type").is_some() && schema["nullable"] != true && schema.get("default").is_none() {
            broken.push(("nullable", Value::Null));
        }
        if schema["format"] == "int32" {
            broken.push(("format", json!(1u64 << 31)));
        } else if schema["format"] == "date-time" {
            broken.push(("format", json!("yesterday")));
        }
        if schema.get("enum").is_some() {
            broken.push(("enum", json!("Nonsense")));
        }
        broken.extend(number("minimum").map(|min| ("minimum", json!((min - 1.0) as i64))));
        broken.extend(number("maximum").map(|max| ("maximum", json!((max + 1.0) as i64))));
        broken.extend(
            count("minLength").filter(|least| *least > 0).map(|least| ("minLength", json!("a".repeat(least - 1)))),
        );
        broken.extend(count("maxLength").map(|most| ("maxLength", json!("é".repeat(most + 1)))));
        broken.extend(schema.get("pattern").map(|_| ("pattern", json!("!! \n"))));
        let members = |count: usize| (0..count).map(|_| good(&schema["items"])).collect::<Vec<Value>>();
        broken
            .extend(count("minItems").filter(|least| *least > 0).map(|least| ("minItems", json!(members(least - 1)))));
        broken.extend(count("maxItems").map(|most| ("maxItems", json!(members(most + 1)))));
        broken.extend(
            schema.get("x-kubernetes-list-map-keys").map(|_| ("x-kubernetes-list-map-keys", json!(members(2)))),
        );
        let fields = |count: usize| {
            let named = (0..count).map(|field| (format!("x{field}"), good(&schema["additionalProperties"])));
            Value::Object(named.collect())
        };
        broken.extend(
            count("minProperties").filter(|least| *least > 0).map(|least| ("minProperties", fields(least - 1))),
        );
        broken.extend(count("maxProperties").map(|most| ("maxProperties", fields(most + 1))));
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let mut fields = good(schema);
            fields.as_object_mut().unwrap().remove(name);
            broken.push(("required", fields));
        }
        broken.into_iter().map(|(bound, value)| (bound.to_owned(), value)).collect()
    }

    /// Breaks every bound at and below `schema`; `wrap` puts a value of its into a whole spec.
    fn walk(schema: &Value, place: &str, wrap: &dyn Fn(Value) -> Value, see: &mut dyn FnMut(&str, &str, Value)) {
        for (bound, value) in bad(schema) {
            see(place, &bound, wrap(value));
        }
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let within = |value: Value| {
                let mut fields = good(schema);
                fields[name] = value;
                wrap(fields)
            };
            walk(below, &format!("{place}.{name}"), &within, see);
        }
        if let Some(below) = schema.get("items") {
            let others = schema["minItems"].as_u64().unwrap_or(1).saturating_sub(1);
            let within = |value: Value| {
                let others = (0..others).map(|_| good(below));
                wrap(std::iter::once(value).chain(others).collect())
            };
            walk(below, &format!("{place}[0]"), &within, see);
        }
        if let Some(below) = schema.get("additionalProperties") {
            walk(below, &format!("{place}.x"), &|value| wrap(json!({"x": value})), see);
        }
    }

    #[test]
    fn what_the_schema_refuses_is_refused_with_the_field_one_bound_at_a_time() {
        for crd in crate::crds() {
            let kind = crd.spec.names.kind.clone();
            let (mut seen, mut bounds) = (0, BTreeSet::new());
            walk(&spec_schema(&crd), "spec", &|value| value, &mut |place, bound, spec| {
                let document = json!({
                    "apiVersion": "hebb.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec,
                });
                let error = load(&document.to_string()).err();
                let error =
                    error.unwrap_or_else(|| panic!("{kind} {place} breaks {bound} and is taken: {spec}")).to_string();
                assert!(error.contains(&format!("document 1: {place}: ")), "{place} breaks {bound}: {error}");
                seen += 1;
                bounds.insert(bound.to_owned());
            });
            assert!(seen > 200 && bounds.contains("pattern"), "{kind}: {seen} bounds, {bounds:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let check = |schema: Value, value: Value, wanted: &str| {
            assert_eq!(problems(&schema, &value, "f"), [wanted], "{schema} {value}");
        };
        check(json!({"type": "integer"}), json!("high"), "f: must be a whole number, not text");
        check(
            json!({"type": "integer", "format": "int32"}),
            json!(1.5),
            "f: must be a whole number of 32 bits, not 1.5",
        );
        check(json!({"type": "number", "minimum": 0.0, "maximum": 1.0}), json!(7), "f: must be between 0 and 1");
        check(json!({"type": "integer", "minimum": 1.0}), json!(-1), "f: must be at least 1");
        check(json!({"type": "string", "minLength": 1, "maxLength": 3}), json!(""), "f: must have 1 to 3 characters");
        check(json!({"type": "array", "maxItems": 1, "items": {}}), json!([1, 2]), "f: must have at most 1 members");
        check(json!({"type": "string", "enum": ["A", "B"]}), json!("C"), "f: must be one of A, B");
        check(json!({"type": "object", "required": ["a"]}), json!({}), "f: a is needed");
        check(json!({"items": {"type": "string"}, "type": "array"}), json!(["a", 1]), "f[1]: must be text, not 1");
        assert!(problems(&json!({"type": "string", "nullable": true}), &Value::Null, "f").is_empty());
        let mut fields = json!({"a": null, "b": null});
        drop_nulls(&json!({"properties": {"a": {"default": 1}, "b": {"nullable": true}}}), &mut fields);
        assert_eq!(fields, json!({"b": null}));
    }
}
