//! A definition's steps as a drawing: layers from left to right, each step right of everything it waits for.

use std::fmt::Write;

use crate::definition::{Definition, Step};
use crate::id::StepIndex;

const BOX_WIDTH: usize = 190;
const BOX_HEIGHT: usize = 64;
const GAP_X: usize = 60;
const GAP_Y: usize = 24;
const MARGIN: usize = 24;
/// Characters of a line that fit into a box.
const MAX_CHARS: usize = 25;

/// Where a step's box stands, in pixels.
struct Place {
    x: usize,
    y: usize,
}

/// Draws the steps of a definition as SVG 1.1: boxes, arrows, the pivot marked.
pub(super) fn svg(definition: &Definition) -> String {
    let layers = layers(definition);
    let rows = layers.iter().map(Vec::len).max().unwrap_or(1);
    let width = 2 * MARGIN + layers.len() * (BOX_WIDTH + GAP_X) - GAP_X;
    let height = 2 * MARGIN + rows * (BOX_HEIGHT + GAP_Y) - GAP_Y;
    let places = places(definition, &layers, height);
    let title = escape(&definition.reference.to_string());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{title}</title>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for index in definition.indices() {
        for &before in definition.graph.dependencies(index) {
            if let (Some(from), Some(to)) = (places.get(before.at()), places.get(index.at())) {
                arrow(&mut out, from, to);
            }
        }
    }
    for (step, place) in definition.steps.iter().zip(&places) {
        draw(&mut out, step, place);
    }
    out.push_str("</svg>\n");
    out
}

/// The steps by the longest path that leads to them.
fn layers(definition: &Definition) -> Vec<Vec<StepIndex>> {
    let mut layer_of: Vec<usize> = vec![0; definition.steps.len()];
    // A path has at most as many steps as there are; each round settles one more layer.
    for _ in 0..definition.steps.len() {
        let mut has_moved = false;
        for index in definition.indices() {
            let before = definition.graph.dependencies(index).iter();
            let layer = before.filter_map(|before| layer_of.get(before.at())).map(|layer| layer + 1).max().unwrap_or(0);
            if let Some(settled) = layer_of.get_mut(index.at())
                && *settled < layer
            {
                *settled = layer;
                has_moved = true;
            }
        }
        if !has_moved {
            break;
        }
    }
    let mut layers = vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)];
    for (index, layer) in definition.indices().zip(layer_of) {
        if let Some(layer) = layers.get_mut(layer) {
            layer.push(index);
        }
    }
    layers
}

/// Each layer is centred.
fn places(definition: &Definition, layers: &[Vec<StepIndex>], height: usize) -> Vec<Place> {
    let mut places: Vec<Place> = definition.indices().map(|_| Place { x: 0, y: 0 }).collect();
    for (column, layer) in layers.iter().enumerate() {
        let taken = layer.len() * (BOX_HEIGHT + GAP_Y) - GAP_Y;
        let top = height.saturating_sub(taken) / 2;
        for (row, index) in layer.iter().enumerate() {
            if let Some(place) = places.get_mut(index.at()) {
                *place = Place { x: MARGIN + column * (BOX_WIDTH + GAP_X), y: top + row * (BOX_HEIGHT + GAP_Y) };
            }
        }
    }
    places
}

fn arrow(out: &mut String, from: &Place, to: &Place) {
    let (x1, y1) = (from.x + BOX_WIDTH, from.y + BOX_HEIGHT / 2);
    let (x2, y2) = (to.x, to.y + BOX_HEIGHT / 2);
    let (bend1, bend2) = (x1 + GAP_X / 2, x2.saturating_sub(GAP_X / 2));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<path d=\"M{x1} {y1}C{bend1} {y1} {bend2} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#667\" stroke-width=\"1.5\" \
         marker-end=\"url(#tip)\"/>"
    );
}

fn draw(out: &mut String, step: &Step, place: &Place) {
    let Place { x, y } = place;
    let (fill, stroke, stroke_width) = if step.pivot { ("#fdf0d5", "#b45309", 3) } else { ("#eef4fb", "#3b6ea5", 1) };
    let dash = if step.when.is_some() { " stroke-dasharray=\"6 3\"" } else { "" };
    let undo = match (step.compensation.action(), step.pivot) {
        (Some(compensation), _) => format!("\u{21a9} {}", compensation.action),
        (None, true) => "pivot: only forward now".to_owned(),
        (None, false) => "nothing to undo".to_owned(),
    };
    let lines = [
        (step.name.clone(), 22, "font-weight=\"bold\" fill=\"#123\""),
        (format!("{}.{}", step.participant, step.action), 39, "fill=\"#345\""),
        (undo, 55, "fill=\"#678\" font-size=\"11\""),
    ];
    let _ = writeln!(
        out,
        "<g><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"7\" fill=\"{fill}\" \
         stroke=\"{stroke}\" stroke-width=\"{stroke_width}\"{dash}/>"
    );
    for (text, down, style) in lines {
        let (x, y, text) = (x + 10, y + down, escape(&shorten(&text)));
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {style}>{text}</text>");
    }
    let full = escape(&format!("{}: {}.{}", step.name, step.participant, step.action));
    let _ = writeln!(out, "<title>{full}</title></g>");
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_CHARS - 1).chain(['\u{2026}']).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no way to write these.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
