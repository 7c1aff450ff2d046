//! Names that a person takes for one another.

use std::collections::HashMap;

use crate::definition::checks::Whole;
use crate::definition::diagnostic::Place;
use crate::definition::fields::{Findings, child};

pub(super) fn check(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    let mut steps = Seen::new("step");
    let mut participants = Seen::new("participant");
    let mut actions: HashMap<String, Seen> = HashMap::new();
    for (at, draft) in whole.drafts.iter().enumerate() {
        let place = |key: &str| whole.step_node(at).and_then(|node| node.get(key)).map(|node| node.place);
        if let Some(name) = &draft.name {
            steps.note(findings, name, draft.name_place, &child(&draft.pointer, "name"));
        }
        let Some(participant) = &draft.participant else { continue };
        if let Some(place) = place("participant") {
            participants.note(findings, participant, place, &child(&draft.pointer, "participant"));
        }
        if let (Some(action), Some(place)) = (&draft.action, place("action")) {
            let known = actions.entry(participant.clone()).or_insert_with(|| Seen::new("action"));
            known.note(findings, action, place, &child(&draft.pointer, "action"));
        }
    }
}

/// Names of one kind, by how they look.
struct Seen {
    kind: &'static str,
    names: HashMap<String, (String, u32)>,
}

impl Seen {
    fn new(kind: &'static str) -> Self {
        Self { kind, names: HashMap::new() }
    }

    fn note(&mut self, findings: &mut Findings<'_>, name: &str, place: Place, pointer: &str) {
        let kind = self.kind;
        match self.names.get(&look(name)) {
            None => {
                self.names.insert(look(name), (name.to_owned(), place.line));
            }
            Some((first, _)) if first == name => {}
            Some((first, line)) => {
                let message = format!("the {kind} `{name}` looks like the {kind} `{first}` on line {line}");
                findings.warning("DEF_NAME_CONFUSABLE", place, pointer, message).suggestion =
                    Some(format!("write both alike if they are one, or give this {kind} a name of its own"));
            }
        }
    }
}

/// What names that are easily taken for one another have in common.
fn look(name: &str) -> String {
    let shown = name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| match c {
        '0' | 'O' => 'o',
        '1' | 'I' => 'l',
        other => other.to_ascii_lowercase(),
    });
    shown.collect()
}
