//! Conditions on labels, with the semantics of Alertmanager: a missing label is an empty one, regular expressions are anchored.

use hebb_api::{MatchType, Matcher};
use regex::{Regex, RegexBuilder};

use crate::message::Labels;

/// Bytes of a compiled regular expression.
const REGEX_MAX: usize = 1 << 18;

/// A matcher, ready to be used.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    name: String,
    value: String,
    match_type: MatchType,
    regex: Option<Regex>,
}

impl Compiled {
    pub(crate) fn new(matcher: &Matcher) -> Result<Self, String> {
        let regex = match matcher.match_type {
            MatchType::Equal | MatchType::NotEqual => None,
            MatchType::Matches | MatchType::MatchesNot => {
                let anchored = format!("^(?:{})$", matcher.value);
                let built = RegexBuilder::new(&anchored).size_limit(REGEX_MAX).build();
                Some(built.map_err(|error| format!("{:?} is no regular expression: {error}", matcher.value))?)
            }
        };
        Ok(Self { name: matcher.name.clone(), value: matcher.value.clone(), match_type: matcher.match_type, regex })
    }

    /// All of them; each that is wrong with its place.
    pub(crate) fn list(matchers: &[Matcher], place: &str, problems: &mut Vec<String>) -> Vec<Self> {
        let mut compiled = Vec::new();
        for (index, matcher) in matchers.iter().enumerate() {
            match Self::new(matcher) {
                Ok(matcher) => compiled.push(matcher),
                Err(problem) => problems.push(format!("{place}[{index}].value: {problem}")),
            }
        }
        compiled
    }

    pub(crate) fn matches_value(&self, value: &str) -> bool {
        let found = match &self.regex {
            Some(regex) => regex.is_match(value),
            None => self.value == value,
        };
        found == matches!(self.match_type, MatchType::Equal | MatchType::Matches)
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).map_or("", String::as_str))
    }

    /// The label that it looks at.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Display for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.match_type.as_str(), self.value)
    }
}

/// Whether all of them match.
pub(crate) fn all_match(matchers: &[Compiled], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, sign: &str, value: &str, expected: bool) {
        let matcher: Matcher =
            serde_json::from_value(serde_json::json!({"name": name, "matchType": sign, "value": value})).unwrap();
        let labels = [("severity".to_owned(), "Critical".to_owned())].into();
        assert_eq!(Compiled::new(&matcher).unwrap().matches(&labels), expected, "{name}{sign}{value}");
    }

    #[test]
    fn a_missing_label_is_empty_and_expressions_are_anchored() {
        check("severity", "=", "Critical", true);
        check("severity", "!=", "Critical", false);
        check("severity", "=~", "Crit", false);
        check("severity", "=~", "Crit.*", true);
        check("severity", "=~", "Warning|Critical", true);
        check("severity", "!~", "Crit", true);
        check("severity", "!~", "Crit.*", false);
        check("team", "=", "", true);
        check("team", "!=", "", false);
        check("team", "!=", "a", true);
        check("team", "=~", ".*", true);
        check("team", "=~", ".+", false);
        check("team", "!~", ".+", true);
    }

    #[test]
    fn an_expression_that_is_none_or_too_big_is_refused() {
        for value in ["(", "(((a{100}){100}){100}){100}"] {
            let matcher = Matcher { value: value.to_owned(), match_type: MatchType::Matches, ..Matcher::default() };
            assert!(Compiled::new(&matcher).is_err(), "{value}");
        }
    }
}
