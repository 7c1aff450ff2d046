//! A picture as a Mermaid flowchart, for documents that draw those.

use std::fmt::Write;

use super::text::plain;
use super::{Kind, Picture, State, Undo};

pub(super) fn draw(picture: &Picture) -> String {
    // Writing to a string cannot fail.
    let mut out = String::from("flowchart TD\n");
    let _ = writeln!(out, "    start([\"{}\"])", label(&[&picture.title]));
    for (at, step) in picture.boxes.iter().enumerate() {
        let mut lines = vec![step.name.clone(), step.caption.clone()];
        lines.extend(step.each.clone());
        lines.extend(step.condition.as_ref().map(|condition| format!("only if {condition}")));
        lines.push(match &step.undo {
            Undo::Action(action) => format!("\u{21a9} {action}"),
            other => other.text(),
        });
        lines.extend(step.look.as_ref().map(|look| format!("[{}]", look.in_words())));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (open, close) = match (step.kind, &step.undo) {
            (_, Undo::Pivot) => ("{{", "}}"),
            (Kind::Saga, _) => ("[[", "]]"),
            (Kind::Wait | Kind::Delay, _) => ("([", "])"),
            (Kind::Command, _) => ("[", "]"),
        };
        let _ = writeln!(out, "    s{at}{open}\"{}\"{close}", label(&lines));
    }
    out.push_str("    completed([\"completed\"])\n    compensated([\"compensated\"])\n");
    let (first, last) = picture.ends();
    for &at in &first {
        let _ = writeln!(out, "    start --> s{at}");
    }
    for &(from, to) in &picture.edges {
        let _ = writeln!(out, "    s{from} --> s{to}");
    }
    for &at in &last {
        let _ = writeln!(out, "    s{at} --> completed");
    }
    for &(from, to) in picture.edges.iter().filter(|(_, to)| picture.has_way_back(*to)) {
        let _ = writeln!(out, "    s{to} -.-> s{from}");
    }
    for &at in first.iter().filter(|&&at| picture.has_way_back(at)) {
        let _ = writeln!(out, "    s{at} -.-> compensated");
    }
    classes(&mut out, picture);
    out
}

fn classes(out: &mut String, picture: &Picture) {
    if let Some(pivot) = picture.pivot {
        out.push_str("    classDef pivot stroke:#b45309,stroke-width:3px\n");
        let _ = writeln!(out, "    class s{pivot} pivot");
    }
    let conditional = picture.boxes.iter().enumerate().filter(|(_, step)| step.condition.is_some());
    let conditional: Vec<String> = conditional.map(|(at, _)| format!("s{at}")).collect();
    if !conditional.is_empty() {
        let _ = writeln!(
            out,
            "    classDef conditional stroke-dasharray:5 4\n    class {} conditional",
            conditional.join(",")
        );
    }
    for state in State::ALL {
        let in_it = picture.boxes.iter().enumerate();
        let in_it = in_it.filter(|(_, step)| step.look.as_ref().is_some_and(|look| look.state == state));
        let in_it: Vec<String> = in_it.map(|(at, _)| format!("s{at}")).collect();
        if !in_it.is_empty() {
            let (name, (fill, ink)) = (state.as_str(), super::style::light(state));
            let _ = writeln!(out, "    classDef {name} fill:{fill},color:{ink}\n    class {} {name}", in_it.join(","));
        }
    }
}

/// Lines of a label. Mermaid has entities by number; everything that could mean something to it is written so.
fn label(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| {
        let mut out = String::with_capacity(line.len());
        for c in plain(line).chars() {
            match c {
                c if c.is_alphanumeric() => out.push(c),
                ' ' | '-' | '_' | '.' | ',' | ':' | '\u{21a9}' => out.push(c),
                c => {
                    let _ = write!(out, "#{};", u32::from(c));
                }
            }
        }
        out
    });
    lines.collect::<Vec<_>>().join("<br/>")
}
