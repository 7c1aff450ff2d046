//! The definitions that worlds draw from: the shipped ones with their waits shortened, and small made-up ones. Compiled
//! once for all worlds.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::bug::Bug;
use super::sky::Dice;
use crate::definition::{self, Definition, Graph};

/// How many made-up definitions there are.
const MADE_UP: usize = 40;
/// The shipped definitions, by what they need besides themselves.
const SHIPPED: [(&str, &[usize]); 5] = [
    (include_str!("../../../sagas/place-order.yaml"), &[]),
    (include_str!("../../../sagas/fulfil-order.yaml"), &[]),
    (include_str!("../../../sagas/business-trip.yaml"), &[]),
    (include_str!("../../../sagas/loyalty-signup.yaml"), &[]),
    (include_str!("../../../sagas/join-club.yaml"), &[3]),
];
/// What makes them quick: hours and days become seconds.
const QUICKER: [(&str, &str); 12] = [
    ("timeout: 15m", "timeout: 40s"),
    ("timeout: 20d", "timeout: 60s"),
    ("timeout: 1h", "timeout: 40s"),
    ("timeout: 3d", "timeout: 40s"),
    ("timeout: 2d", "timeout: 15s"),
    ("delay: 14d", "delay: 3s"),
    ("timeout: 1m", "timeout: 2s"),
    ("maxInterval: 1m", "maxInterval: 2s"),
    ("maxInterval: 10s", "maxInterval: 2s"),
    ("timeout: 30s", "timeout: 2s"),
    ("timeout: 20s", "timeout: 2s"),
    ("timeout: 15s", "timeout: 3s"),
];

/// A definition, with what it needs.
pub(super) struct Recipe {
    pub(super) source: String,
    pub(super) definition: Arc<Definition>,
    /// The same name with another version, for whoever registers one while sagas run.
    pub(super) next: Option<(String, Arc<Definition>)>,
    /// Definitions that it starts.
    pub(super) children: Vec<&'static Recipe>,
    is_made_up: bool,
}

/// How many recipes there are.
pub(super) fn count() -> usize {
    SHIPPED.len() + MADE_UP
}

/// One of them; `None` when it does not compile, which a test rules out.
pub(super) fn recipe(at: usize) -> Option<&'static Recipe> {
    static RECIPES: [OnceLock<Option<Recipe>>; SHIPPED.len() + MADE_UP] =
        [const { OnceLock::new() }; SHIPPED.len() + MADE_UP];
    RECIPES.get(at)?.get_or_init(|| make(at)).as_ref()
}

fn make(at: usize) -> Option<Recipe> {
    if let Some((source, needs)) = SHIPPED.get(at) {
        let mut source = (*source).to_owned();
        for (slow, quick) in QUICKER {
            source = source.replace(slow, quick);
        }
        if !source.contains("compensation: { retry:") {
            source = source
                .replace("defaults:\n", "defaults:\n  compensation: { retry: { maxAttempts: 20, maxInterval: 2s } }\n");
        }
        let children = needs.iter().filter_map(|&at| recipe(at)).collect();
        let definition = definition::compile(&source)?;
        return Some(Recipe { source, definition, next: None, children, is_made_up: false });
    }
    let source = made_up(at as u64, 1);
    let next = made_up(at as u64, 2);
    let (definition, next) = (definition::compile(&source)?, (definition::compile(&next)?, next));
    Some(Recipe { source, definition, next: Some((next.1, next.0)), children: Vec::new(), is_made_up: true })
}

impl Recipe {
    /// An input whose key is made of `n`.
    pub(super) fn input(&self, n: u64, dice: &mut Dice) -> Value {
        let id = format!("k{n}");
        if self.is_made_up {
            let items: Vec<u64> = (0..dice.below(4)).collect();
            return json!({ "id": id, "flag": dice.below(2) == 0, "items": items });
        }
        let lines: Vec<Value> = (0..=dice.below(2)).map(|n| json!({ "sku": format!("s{n}"), "quantity": 1 })).collect();
        match self.definition.reference.name.as_str() {
            "place-order" | "fulfil-order" => {
                json!({ "orderId": id, "customer": "c", "lines": lines, "total": 5, "card": "x" })
            }
            "business-trip" => {
                json!({ "tripId": id, "traveller": "t", "flight": "f", "hotel": "h", "card": "x" })
            }
            "loyalty-signup" => {
                json!({ "customerId": id, "email": "a@b", "tier": "gold", "giftWanted": dice.below(2) == 0 })
            }
            _ => json!({ "customerId": id, "email": "a@b", "tier": "basic", "atOnce": dice.below(2) == 0 }),
        }
    }

    /// The definition as a coordinator with this bug has it in mind.
    pub(super) fn in_mind(&self, bug: Option<Bug>) -> Vec<Arc<Definition>> {
        let next = self.next.as_ref().map(|(_, definition)| definition.clone());
        let all = || std::iter::once(self.definition.clone()).chain(next.clone()).collect();
        let Some(bug @ (Bug::OrderIgnored | Bug::PivotIgnored | Bug::NewestDefinition)) = bug else { return all() };
        let source = match (bug, &self.next) {
            (Bug::NewestDefinition, Some((source, _))) => source,
            _ => &self.source,
        };
        let Some(mut altered) = definition::compile(source).and_then(Arc::into_inner) else { return all() };
        altered.reference = self.definition.reference.clone();
        altered.hash = self.definition.hash;
        match bug {
            Bug::OrderIgnored => {
                if let Ok(graph) = Graph::new(vec![Vec::new(); altered.steps.len()]) {
                    altered.graph = graph;
                }
            }
            Bug::PivotIgnored => {
                for step in &mut altered.steps {
                    step.pivot = false;
                }
            }
            _ => {}
        }
        std::iter::once(Arc::new(altered)).chain(next).collect()
    }
}

/// A small definition: layers of one or two steps, one of which may be the pivot.
fn made_up(seed: u64, version: u32) -> String {
    let mut dice = Dice::of(seed, 7);
    let name = format!("m{seed}");
    let mut text = format!("saga: {name}\nversion: {version}\nowner: nobody\nrunbook: https://example.org/r\n");
    text.push_str("key: ${ input.id }\ninput:\n  schema:\n    type: object\n    required: [id, flag, items]\n");
    text.push_str("    properties: { id: { type: string }, flag: { type: boolean }, items: { type: array, items: { type: integer } } }\n");
    let attempts = 1 + dice.below(3);
    // No `nonRetryable`: it takes the participant's word that a `retry` left nothing, of which no inbox keeps a record, so
    // that a second copy of the command may take effect after it.
    let _ = write!(
        text,
        "timeout: {}s\ndefaults:\n  timeout: {}ms\n  retry: {{ maxAttempts: {attempts}, initialInterval: 200ms, maxInterval: 1s }}\n  compensation: {{ timeout: 1s, retry: {{ maxAttempts: {}, initialInterval: 200ms, maxInterval: 2s }} }}\nsteps:\n",
        5 + dice.below(30),
        800 + dice.below(1_200),
        3 + dice.below(15),
    );
    let layers = 1 + dice.below(4);
    // What the next version leaves as it was: a saga that is no further can be moved to it.
    let kept = Dice::of(seed, 8).below(layers + 1);
    let pivot = if dice.below(2) == 0 { dice.below(layers) } else { layers };
    let mut before: Vec<String> = Vec::new();
    // A step before whose output there always is.
    let mut read: Option<String> = None;
    for layer in 0..layers {
        let width = if layer == pivot { 1 } else { 1 + dice.below(2) };
        let (mut these, mut always) = (Vec::new(), None);
        for place in 0..width {
            let step = format!("s{layer}{}", ["a", "b"][usize::from(place > 0)]);
            let _ = write!(text, "  - name: {step}\n    after: [{}]\n", before.join(", "));
            let kind = dice.below(12);
            match kind {
                0 if layer < pivot => {
                    let on_timeout = if dice.below(2) == 0 { "fail" } else { "continue" };
                    let _ = writeln!(text, "    wait: {{ signal: {step}, timeout: 4s, onTimeout: {on_timeout} }}");
                    these.push(step);
                    continue;
                }
                1 if layer != pivot => {
                    text.push_str("    delay: 900ms\n");
                    these.push(step);
                    continue;
                }
                2 if layer != pivot => {
                    text.push_str("    forEach: { items: \"${ input.items }\", maxItems: 4, maxParallel: 2 }\n");
                }
                3 if layer != pivot => text.push_str("    when: ${ input.flag }\n"),
                _ => {}
            }
            let service = ["ant", "bee", "cat"][dice.below(3) as usize];
            let version = if layer < kept { 1 } else { version };
            let _ = write!(text, "    participant: {service}\n    action: {step}-v{version}\n");
            let read = read.as_ref().filter(|_| dice.below(2) == 0);
            let read = read.map(|of| format!(", seen: \"${{ steps['{of}'].output.number }}\"")).unwrap_or_default();
            let _ = writeln!(text, "    input: {{ id: \"${{ input.id }}\"{read} }}");
            if kind > 3 {
                always = Some(step.clone());
            }
            if layer == pivot {
                text.push_str("    pivot: true\n    compensation: none\n");
            } else if layer > pivot {
                let attempts = dice.below(2) * 30;
                let _ = writeln!(text, "    retry: {{ maxAttempts: {attempts}, maxInterval: 1s }}");
            } else if dice.below(8) == 0 {
                text.push_str("    compensation: none\n");
            } else {
                let _ = writeln!(text, "    compensation: {{ action: undo-{step} }}");
            }
            these.push(step);
        }
        before = these;
        read = always.or(read);
    }
    text.push_str("output: { id: \"${ input.id }\" }\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Severity;

    #[test]
    fn every_recipe_is_a_sound_definition() {
        for at in 0..count() {
            let recipe =
                recipe(at).unwrap_or_else(|| panic!("recipe {at} does not compile:\n{}", made_up(at as u64, 1)));
            let sources = std::iter::once(&recipe.source).chain(recipe.next.iter().map(|(source, _)| source));
            for source in sources {
                let checked = definition::read(source);
                let errors: Vec<_> =
                    checked.diagnostics.iter().filter(|found| found.severity == Severity::Error).collect();
                assert!(errors.is_empty(), "recipe {at}: {errors:#?}\n{source}");
            }
            let input = recipe.input(1, &mut Dice::of(1, 1)).into();
            assert_eq!(recipe.definition.check_input(&input), []);
        }
    }
}
