//! A picture as a graph in Graphviz' DOT.

use std::fmt::Write;

use super::text::plain;
use super::{Kind, Picture, Undo};

const BACK: &str = "style=dashed, color=\"#c2410c\", constraint=false, weight=0";

pub(super) fn draw(picture: &Picture) -> String {
    // Writing to a string cannot fail.
    let mut out = format!("digraph {} {{\n", quoted(&[&picture.title]));
    out.push_str("    rankdir=TB;\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
    out.push_str(
        "    start [shape=oval];\n    completed [shape=oval];\n    compensated [shape=oval, color=\"#c2410c\"];\n",
    );
    for (at, step) in picture.boxes.iter().enumerate() {
        let mut lines = vec![step.name.clone(), step.caption.clone()];
        lines.extend(step.each.clone());
        lines.extend(step.condition.as_ref().map(|condition| format!("only if {condition}")));
        lines.push(step.undo.text());
        lines.extend(step.look.as_ref().map(|look| format!("[{}]", look.in_words())));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let shape = match (step.kind, &step.undo) {
            (_, Undo::Pivot) => "shape=hexagon, penwidth=3, color=\"#b45309\"",
            (Kind::Saga, _) => "shape=box3d",
            (Kind::Wait | Kind::Delay, _) => "shape=oval",
            (Kind::Command, _) => "shape=box",
        };
        let style = if step.condition.is_some() { "rounded,filled,dashed" } else { "rounded,filled" };
        let fill = step.look.as_ref().map_or("#f8fafc", |look| super::style::light(look.state).0);
        let _ =
            writeln!(out, "    s{at} [label={}, {shape}, style=\"{style}\", fillcolor=\"{fill}\"];", quoted(&lines));
    }
    let (first, last) = picture.ends();
    for at in &first {
        let _ = writeln!(out, "    start -> s{at};");
    }
    for (from, to) in &picture.edges {
        let _ = writeln!(out, "    s{from} -> s{to};");
    }
    for at in &last {
        let _ = writeln!(out, "    s{at} -> completed;");
    }
    for (from, to) in picture.edges.iter().filter(|(_, to)| picture.has_way_back(*to)) {
        let _ = writeln!(out, "    s{to} -> s{from} [{BACK}];");
    }
    for at in first.iter().filter(|&&at| picture.has_way_back(at)) {
        let _ = writeln!(out, "    s{at} -> compensated [{BACK}];");
    }
    out.push_str("}\n");
    out
}

/// A quoted string of lines. A backslash would begin one of Graphviz' own escapes.
fn quoted(lines: &[&str]) -> String {
    let lines = lines.iter().map(|line| plain(line).replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\""));
    format!("\"{}\"", lines.collect::<Vec<_>>().join("\\n"))
}
