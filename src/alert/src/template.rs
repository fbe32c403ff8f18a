//! Templates of people who may edit a policy and nothing else: no files, no other templates, and fuel for a bounded amount of
//! work and of memory.

use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, Value};

/// Steps and bytes that a rendering may cost: a hundred times what a long message needs.
const FUEL: u64 = 50_000;
/// How deep expressions may be nested.
const DEPTH: usize = 32;

/// Renders messages: what isn't known is empty.
static LENIENT: LazyLock<Environment<'static>> = LazyLock::new(|| sandbox(UndefinedBehavior::Lenient));
/// Checks templates: what isn't known is a mistake.
static STRICT: LazyLock<Environment<'static>> = LazyLock::new(|| sandbox(UndefinedBehavior::Strict));

fn sandbox(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut sandbox = Environment::new();
    sandbox.set_fuel(Some(FUEL));
    sandbox.set_recursion_limit(DEPTH);
    sandbox.set_undefined_behavior(undefined);
    sandbox.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    sandbox
}

/// What is wrong with a template, found by rendering it with an example of what it will be given.
pub(crate) fn problem(template: &str, example: &Value) -> Option<String> {
    STRICT.render_str(template, example.clone()).err().map(|error| described(&error))
}

/// Renders a template to at most `max` bytes; one that fails says so in its place, since an alert must not be lost to it.
pub(crate) fn render(template: &str, known: &Value, max: usize) -> String {
    match LENIENT.render_str(template, known.clone()) {
        Ok(text) => cut(text, max),
        Err(error) => cut(format!("{template} (not rendered: {})", described(&error)), max),
    }
}

/// Renders a whole body.
pub(crate) fn render_body(template: &str, known: &Value) -> Result<String, String> {
    LENIENT.render_str(template, known.clone()).map_err(|error| described(&error))
}

fn described(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    let text = error.detail().map_or(kind.clone(), |detail| format!("{kind}: {detail}"));
    match error.line() {
        Some(line) => cut(format!("{text} (line {line})"), 200),
        None => cut(text, 200),
    }
}

/// The text, cut between two characters to at most `max` bytes.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if max < text.len() {
        const MARK: &str = "…";
        let room = max.saturating_sub(MARK.len());
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        if MARK.len() <= max {
            text.push_str(MARK);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_what_is_not_is_a_problem_or_empty() {
        let known = context!(target => "demo", value => 0.93333);
        assert_eq!(render("{{ target }} at {{ (value * 100)|round(1) }} %", &known, 99), "demo at 93.3 %");
        assert_eq!(render("{{ tarket }}!", &known, 99), "!");
        assert_eq!(problem("{{ target }}", &known), None);
        assert!(problem("{{ tarket }}", &known).unwrap().contains("undefined"));
        assert!(problem("{{ target", &known).unwrap().contains("syntax error"));
        assert!(problem("{{ target|nope }}", &known).unwrap().contains("unknown filter"));
    }

    #[test]
    fn work_and_memory_are_bounded() {
        let doubling = format!("{{% set a = 'aaaaaaaaaaaaaaaa' %}}{}", "{% set a = a ~ a %}".repeat(40));
        for template in [
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{{ 'a' * 1000000000 }}",
            &doubling,
        ] {
            let text = render(template, &context!(), 4_096);
            assert!(text.contains("not rendered") || text.len() <= 4_096, "{text}");
            assert!(problem(template, &context!()).is_some(), "{template}");
        }
    }

    #[test]
    fn nothing_outside_is_reached() {
        for template in ["{% include '/etc/passwd' %}", "{% import 'a' as a %}", "{% extends 'a' %}"] {
            assert!(problem(template, &context!()).is_some(), "{template}");
        }
    }

    #[test]
    fn a_cut_is_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 5), "ä…");
        assert_eq!(cut("äöü".to_owned(), 6), "äöü");
        assert_eq!(cut("äöü".to_owned(), 1), "");
    }
}
