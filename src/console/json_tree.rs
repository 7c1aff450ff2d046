//! JSON as a tree that folds. It is read from its text, so that numbers are shown exactly as they are stored.

use std::borrow::Cow;
use std::fmt;

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::definition::sensitive::{HIDDEN, Secrets};

/// Members of one object and items of one list that are shown, at most.
const MOST: usize = 200;
/// Characters of one string that are shown, at most.
const LONGEST: usize = 2_000;
/// Bytes of a text that can be copied, at most: it stands in the page once more.
const COPIED: usize = 4_000;
/// Objects and lists inside each other that are shown as trees.
const DEEPEST: usize = 24;

/// The members of an object, in order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The tree of a JSON text, open at its top.
pub(super) fn tree(text: &str, secrets: &Secrets) -> Markup {
    if secrets.hides_everything() {
        return html! { div.json { (leaf(None, html! { span.hidden-value { (HIDDEN) } })) } };
    }
    let text = text.trim();
    let copied = Some(text).filter(|text| text.len() <= COPIED && text.starts_with(['{', '[']));
    html! {
        div.json {
            @if let Some(copied) = copied { button.quiet.copy type="button" data-copy=(shareable(copied, secrets)) hidden { "Copy" } }
            (node(None, text, secrets, 0))
        }
    }
}

/// The text as it may leave the page: as it is stored, so that numbers stay exact, unless something in it is hidden.
fn shareable<'t>(text: &'t str, secrets: &Secrets) -> Cow<'t, str> {
    if secrets.is_empty() {
        return text.into();
    }
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    secrets.value(&value).to_string().into()
}

fn node(name: Option<&str>, text: &str, secrets: &Secrets, depth: usize) -> Markup {
    let is_hidden = name.is_some_and(|name| secrets.hides_member(name));
    let told = name.map(|name| secrets.text(name));
    let name = told.as_deref();
    if is_hidden {
        return leaf(name, html! { span.hidden-value { (HIDDEN) } });
    }
    match text.as_bytes().first() {
        Some(b'{') if depth < DEEPEST => {
            let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
                return leaf(name, raw(text, secrets));
            };
            let count = members.len();
            let inner = html! {
                @for (name, value) in members.iter().take(MOST) { li { (node(Some(name), value.get(), secrets, depth + 1)) } }
                @if count > MOST { li.soft { "and " (count - MOST) " more" } }
            };
            branch(name, "{", "}", count, depth, inner)
        }
        Some(b'[') if depth < DEEPEST => {
            let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) else { return leaf(name, raw(text, secrets)) };
            let count = items.len();
            let inner = html! {
                @for item in items.iter().take(MOST) { li { (node(None, item.get(), secrets, depth + 1)) } }
                @if count > MOST { li.soft { "and " (count - MOST) " more" } }
            };
            branch(name, "[", "]", count, depth, inner)
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
            let string = secrets.text(&string);
            let shown: String = string.chars().take(LONGEST).collect();
            let is_cut = shown.len() < string.len();
            leaf(name, html! { span.string { (shown) } @if is_cut { span.soft { " … cut off" } } })
        }
        _ => leaf(name, raw(text, secrets)),
    }
}

fn raw(text: &str, secrets: &Secrets) -> Markup {
    let shown: String = secrets.text(text).chars().take(LONGEST).collect();
    html! { span.literal { (shown) } }
}

fn leaf(name: Option<&str>, value: Markup) -> Markup {
    html! { @if let Some(name) = name { span.name { (name) } ": " } (value) }
}

fn branch(name: Option<&str>, open: &str, close: &str, count: usize, depth: usize, inner: Markup) -> Markup {
    if count == 0 {
        return leaf(name, html! { span.literal { (open) (close) } });
    }
    html! {
        details open[depth < 2] {
            summary { @if let Some(name) = name { span.name { (name) } " " } span.soft { (open) " " (count) " " (close) } }
            ul { (inner) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        tree(text, &Secrets::default()).into_string()
    }

    #[test]
    fn numbers_are_shown_as_they_are_stored() {
        for number in ["12345678901234567890123", "0.1000000000000000055511151231257827", "1e400", "-0"] {
            assert!(shown(&format!(r#"{{"n":{number}}}"#)).contains(&format!(">{number}<")), "{number}");
        }
    }

    #[test]
    fn markup_is_escaped_in_names_and_values() {
        let shown = shown(r#"{"<script>alert(1)</script>":["</span><img src=x onerror=alert(1)>"]}"#);
        assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
    }

    #[test]
    fn what_is_too_much_is_cut() {
        let list = format!("[{}]", vec!["1"; 500].join(","));
        assert!(shown(&list).contains("and 300 more"));
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        assert!(shown(&deep).matches("<details").count() <= DEEPEST);
    }
}
