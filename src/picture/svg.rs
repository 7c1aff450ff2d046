//! A picture as SVG 1.1.

use std::fmt::Write;

use super::icon::Icon;
use super::layout::{Gaps, Layout, Place, Size, lay_out};
use super::style;
use super::text::{shorten, two_lines, width, xml};
use super::{Picture, StepBox, Undo};

const MARGIN: i32 = 28;
const GAPS: Gaps = Gaps { across: 36, down: 62 };
/// How far from a box's middle the ways on and back run.
const LANE: i32 = 14;
const MIN_CARD: f64 = 214.0;
const MAX_CARD: f64 = 310.0;
/// From a card's left edge to its icons and to its texts.
const ICON: i32 = 12;
const TEXT: i32 = 36;
const NAME: f64 = 14.0;
const PLAIN: f64 = 12.0;
const SMALL: f64 = 11.0;
const ROW: i32 = 20;
const FOOT: i32 = 28;
const PILL: i32 = 34;
const PILL_WIDTH: i32 = 240;
/// How far a line runs straight before it bends.
const STUB: i32 = 12;
/// By how much the lowest sheet of a `forEach` card shows below it.
const SHEETS: i32 = 8;

/// A line of a card, below its name.
struct Row {
    icon: Option<Icon>,
    text: String,
}

/// A card before it has its place: everything that it holds, made to fit.
struct Card<'a> {
    step: &'a StepBox,
    is_pivot: bool,
    name: Vec<String>,
    rows: Vec<Row>,
    state: Option<String>,
    undo: String,
    height: i32,
}

pub(super) fn draw(picture: &Picture) -> String {
    let card_width = card_width(picture);
    let cards: Vec<Card<'_>> =
        picture.boxes.iter().enumerate().map(|(at, step)| card(step, picture.pivot == Some(at), card_width)).collect();
    // The cards, then where the saga starts (and is back again) and where it is completed.
    let mut sizes: Vec<Size> =
        cards.iter().map(|card| Size { width: card_width, height: card.whole_height() }).collect();
    let (start, end) = (sizes.len(), sizes.len() + 1);
    sizes.push(Size { width: PILL_WIDTH, height: PILL });
    sizes.push(Size { width: PILL_WIDTH / 2, height: PILL });
    let (first, last) = picture.ends();
    let mut edges: Vec<(usize, usize)> = first.into_iter().map(|at| (start, at)).collect();
    edges.extend(&picture.edges);
    edges.extend(last.into_iter().map(|at| (at, end)));
    let layout = lay_out(&sizes, &edges, GAPS);

    let head = head(picture);
    let legend = legend(picture);
    let wanted = head.iter().map(|line| line.width).fold(layout.width, i32::max).max(360);
    let (legend_rows, legend_height) = wrap(&legend, wanted);
    let shift = (MARGIN + (wanted - layout.width) / 2, MARGIN + head.iter().map(|line| line.height).sum::<i32>() + 14);
    let size = (wanted + 2 * MARGIN, shift.1 + layout.height + 22 + legend_height + MARGIN - 8);

    let mut out = String::new();
    open(&mut out, picture, size);
    let mut y = MARGIN;
    for line in &head {
        y += line.height;
        line.draw(&mut out, MARGIN, y - 6);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<g transform=\"translate({} {})\">", shift.0, shift.1);
    if let Some(place) = picture.pivot.and_then(|pivot| layout.places.get(pivot)) {
        pivot_line(&mut out, place, -shift.0 + 8, layout.width + shift.0 - 8);
    }
    ways(&mut out, picture, &layout, start);
    for (card, place) in cards.iter().zip(&layout.places) {
        let is_linked = picture.is_linked && card.step.look.is_some();
        if is_linked {
            let _ = writeln!(out, "<a href=\"#step-{}\">", xml(&card.step.name));
        }
        card.draw(&mut out, place, card_width);
        if is_linked {
            out.push_str("</a>\n");
        }
    }
    if let (Some(start), Some(end)) = (layout.places.get(start), layout.places.get(end)) {
        start_pill(
            &mut out,
            start,
            picture.boxes.iter().any(|step| step.stage != crate::definition::Stage::AfterPivot),
        );
        pill(&mut out, end, PILL_WIDTH / 2, Icon::DONE, "completed");
    }
    out.push_str("</g>\n");
    for (x, row, item) in legend_rows {
        let y = shift.1 + layout.height + 22 + row * 22;
        item.draw(&mut out, MARGIN + x, y + 12);
    }
    out.push_str("</svg>\n");
    out
}

fn open(out: &mut String, picture: &Picture, (width, height): (i32, i32)) {
    let title = match &picture.saga {
        Some(saga) => format!("{}: {}, {}", picture.title, saga.label, saga.state),
        None => picture.title.clone(),
    };
    // What is in an image is not told to a screen reader, nor are its links.
    let role = if picture.is_linked { "group" } else { "img" };
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"{role}\" aria-labelledby=\"amends-title amends-desc\">\n\
         <title id=\"amends-title\">{}</title>\n<desc id=\"amends-desc\">{}</desc>\n<style>{}</style>\n\
         <rect class=\"g\" width=\"{width}\" height=\"{height}\"/>",
        xml(&title),
        xml(&picture.description()),
        style::sheet()
    );
}

/// Wide enough for every text, within limits.
fn card_width(picture: &Picture) -> i32 {
    let beside = f64::from(TEXT + ICON);
    let widest = picture.boxes.iter().flat_map(|step| {
        let state = step.look.as_ref().map_or(0.0, |look| width(&look.in_words(), SMALL, true));
        [
            width(&step.name, NAME, true),
            width(&step.caption, PLAIN, false),
            width(&step.undo.text(), SMALL, false),
            state,
        ]
    });
    (widest.fold(0.0, f64::max) + beside).clamp(MIN_CARD, MAX_CARD).ceil() as i32
}

fn card(step: &StepBox, is_pivot: bool, card_width: i32) -> Card<'_> {
    let room = f64::from(card_width - TEXT - ICON);
    let mut rows = vec![Row { icon: None, text: shorten(&step.caption, PLAIN, false, room) }];
    if let Some(each) = &step.each {
        rows.push(Row { icon: Some(Icon::EACH), text: shorten(each, PLAIN, false, room) });
    }
    if let Some(condition) = &step.condition {
        let text = shorten(&format!("only if {condition}"), PLAIN, false, room);
        rows.push(Row { icon: Some(Icon::CONDITION), text });
    }
    let name = two_lines(&step.name, NAME, true, room);
    let state = step.look.as_ref().map(|look| shorten(&look.in_words(), SMALL, true, room));
    let lines = i32::try_from(name.len() + rows.len()).unwrap_or(i32::MAX / ROW);
    let height = 10 + lines * ROW + 6 + if state.is_some() { FOOT } else { 0 } + FOOT;
    Card { step, is_pivot, name, rows, state, undo: shorten(&step.undo.text(), SMALL, false, room), height }
}

impl Card<'_> {
    fn whole_height(&self) -> i32 {
        self.height + if self.step.each.is_some() { SHEETS } else { 0 }
    }

    fn draw(&self, out: &mut String, place: &Place, card_width: i32) {
        let (left, top) = (place.x - card_width / 2, place.top);
        let _ = writeln!(out, "<g><title>{}</title>", xml(&format!("{}: {}", self.step.name, self.step.in_words())));
        let conditional = if self.step.condition.is_some() { " if" } else { "" };
        let class = if self.is_pivot { "c p" } else { "c" };
        if self.step.each.is_some() {
            // Two more sheets behind it.
            for behind in [SHEETS, SHEETS / 2] {
                let (x, y, height) = (left + behind, top + behind, self.height);
                let _ = writeln!(
                    out,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{card_width}\" height=\"{height}\" rx=\"9\"/>"
                );
            }
        }
        let _ = writeln!(
            out,
            "<rect class=\"{class}{conditional}\" x=\"{left}\" y=\"{top}\" width=\"{card_width}\" height=\"{}\" rx=\"9\"/>",
            self.height
        );
        let mut y = top + 10;
        icon(out, Icon::of_kind(self.step.kind), left + ICON, y + 2, "t", "ti");
        for line in &self.name {
            text(out, "n t", left + TEXT, y + 15, line);
            y += ROW;
        }
        for row in &self.rows {
            if let Some(shape) = row.icon {
                icon(out, shape, left + ICON, y + 2, "m", "mi");
            }
            text(out, "m", left + TEXT, y + 14, &row.text);
            y += ROW;
        }
        y += 6;
        if let (Some(state), Some(look)) = (&self.state, &self.step.look) {
            let word = look.state.as_str();
            let _ = writeln!(
                out,
                "<rect class=\"{word}\" x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{FOOT}\"/>",
                left + 1,
                card_width - 2
            );
            icon(out, Icon::of_state(look.state), left + ICON, y + 6, &format!("{word}-t"), &format!("{word}-i"));
            let _ = writeln!(
                out,
                "<text class=\"s {word}-t\" font-weight=\"600\" x=\"{}\" y=\"{}\">{}</text>",
                left + TEXT,
                y + 18,
                xml(state)
            );
            y += FOOT;
        }
        self.foot(out, left, y, card_width);
        out.push_str("</g>\n");
    }

    fn foot(&self, out: &mut String, left: i32, y: i32, card_width: i32) {
        let (x, right, bottom) = (left + 1, left + card_width - 1, y + FOOT - 1);
        let _ = writeln!(
            out,
            "<path class=\"k\" d=\"M{x} {y}H{right}V{}Q{right} {bottom} {} {bottom}H{}Q{x} {bottom} {x} {}Z\"/>\
             <path class=\"d\" d=\"M{left} {y}H{}\"/>",
            bottom - 8,
            right - 8,
            x + 8,
            bottom - 8,
            left + card_width
        );
        let (fill, line) = match self.step.undo {
            Undo::Action(_) => ("bt", "bi"),
            Undo::Pivot => ("pt", "pi"),
            Undo::Nothing | Undo::OnlyForward => ("m", "mi"),
        };
        icon(out, Icon::of_undo(&self.step.undo), left + ICON, y + 6, fill, line);
        text(out, &format!("s {fill}"), left + TEXT, y + 18, &self.undo);
    }
}

fn text(out: &mut String, class: &str, x: i32, y: i32, text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", xml(text));
}

fn icon(out: &mut String, icon: Icon, x: i32, y: i32, fill: &str, line: &str) {
    let (class, path) = match icon {
        Icon::Filled(path) => (fill.to_owned(), path),
        Icon::Line(path) => (format!("i {line}"), path),
    };
    let _ = writeln!(out, "<path class=\"{class}\" transform=\"translate({x} {y})\" d=\"{path}\"/>");
}

/// The line below the pivot that no way back crosses.
fn pivot_line(out: &mut String, pivot: &Place, left: i32, right: i32) {
    let y = pivot.bottom + STUB + 4;
    let _ = writeln!(out, "<path class=\"l\" d=\"M{left} {y}H{right}\"/>");
    let _ = writeln!(
        out,
        "<text class=\"s pt\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">no way back from here</text>",
        y + 15
    );
}

/// The ways on, and beside them the ways back.
fn ways(out: &mut String, picture: &Picture, layout: &Layout, start: usize) {
    let (mut on, mut back) = (String::new(), String::new());
    let (mut heads_on, mut heads_back) = (Vec::new(), Vec::new());
    for route in &layout.routes {
        let (Some(from), Some(to)) = (layout.places.get(route.from), layout.places.get(route.to)) else { continue };
        // The end is one of the places, but no step: nothing comes back from it.
        let is_both_ways = picture.has_way_back(route.to) && route.to != start;
        let aside = if is_both_ways { -LANE } else { 0 };
        curve(&mut on, from, &route.via, to, (aside, 0, 6));
        heads_on.push((to.x + aside, to.top));
        if is_both_ways {
            curve(&mut back, from, &route.via, to, (LANE, 6, 0));
            heads_back.push((from.x + LANE, from.bottom));
        }
    }
    for heads in [&mut heads_on, &mut heads_back] {
        heads.sort_unstable();
        heads.dedup();
    }
    if !back.is_empty() {
        let _ = writeln!(out, "<path class=\"b\" d=\"{back}\"/>");
    }
    let _ = writeln!(out, "<path class=\"f\" d=\"{on}\"/>");
    let heads: String = heads_on.iter().map(|(x, y)| format!("M{x} {y}l-5 -9h10z")).collect();
    let _ = writeln!(out, "<path class=\"fa\" d=\"{heads}\"/>");
    if !heads_back.is_empty() {
        let heads: String = heads_back.iter().map(|(x, y)| format!("M{x} {y}l-5 9h10z")).collect();
        let _ = writeln!(out, "<path class=\"ba\" d=\"{heads}\"/>");
    }
}

/// A way down from box to box, `aside` of the middle; straight past the boxes of the layers between. It keeps away from
/// the ends where arrow heads stand.
fn curve(path: &mut String, from: &Place, via: &[Place], to: &Place, (aside, above, below): (i32, i32, i32)) {
    // The ways back bend a little lower: where they run level with the ways on, both can be seen.
    let lower = if aside > 0 { STUB * 2 / 3 } else { 0 };
    let mut x = from.x + aside;
    let mut y = from.bottom + STUB + lower;
    // Writing to a string cannot fail.
    let _ = write!(path, "M{x} {}V{y}", from.bottom + above);
    let target = Place { x: to.x, top: to.top - STUB + lower, bottom: to.top - below };
    for next in via.iter().chain([&target]) {
        let next_x = next.x + aside;
        if next_x != x {
            let bend = (next.top - y) * 2 / 3;
            let _ = write!(path, "C{x} {} {next_x} {} {next_x} {}", y + bend, next.top - bend, next.top);
        }
        let _ = write!(path, "V{}", next.bottom);
        (x, y) = (next_x, next.bottom);
    }
}

/// Where the saga starts, and where it is back again.
fn start_pill(out: &mut String, place: &Place, has_way_back: bool) {
    if !has_way_back {
        return pill(out, place, PILL_WIDTH / 2, Icon::START, "start");
    }
    let (left, top, middle) = (place.x - PILL_WIDTH / 2, place.top, place.x);
    let _ = writeln!(
        out,
        "<rect class=\"c\" x=\"{left}\" y=\"{top}\" width=\"{PILL_WIDTH}\" height=\"{PILL}\" rx=\"{}\"/>\
         <path class=\"d\" d=\"M{middle} {top}V{}\"/>",
        PILL / 2,
        place.bottom
    );
    icon(out, Icon::START, left + 24, top + 9, "t", "ti");
    text(out, "t", left + 46, top + 21, "start");
    icon(out, Icon::UNDONE, middle + 10, top + 9, "bt", "bi");
    text(out, "s bt", middle + 30, top + 21, "compensated");
}

fn pill(out: &mut String, place: &Place, width: i32, shape: Icon, label: &str) {
    let (left, top) = (place.x - width / 2, place.top);
    let _ = writeln!(
        out,
        "<rect class=\"c\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{PILL}\" rx=\"{}\"/>",
        PILL / 2
    );
    icon(out, shape, left + 12, top + 9, "t", "ti");
    text(out, "t", left + 34, top + 21, label);
}

/// A line of the head, or an item of the legend.
struct Line {
    class: &'static str,
    text: String,
    mark: Option<Mark>,
    width: i32,
    height: i32,
}

#[derive(Clone, Copy)]
enum Mark {
    On,
    Back,
    Icon(Icon, &'static str, &'static str),
}

impl Line {
    fn new(class: &'static str, size: f64, text: String) -> Self {
        let wide = width(&text, size, class.starts_with('h')).ceil() as i32;
        Self { class, text, mark: None, width: wide, height: (size * 1.6) as i32 }
    }

    fn marked(mark: Mark, text: &str) -> Self {
        let line = Self::new("s m", SMALL, text.to_owned());
        let mark_width = if matches!(mark, Mark::Icon(..)) { 22 } else { 36 };
        Self { mark: Some(mark), width: line.width + mark_width, ..line }
    }

    fn draw(&self, out: &mut String, x: i32, y: i32) {
        let x = match self.mark {
            None => x,
            Some(Mark::On) => {
                let _ = writeln!(
                    out,
                    "<path class=\"f\" d=\"M{x} {0}h22\"/><path class=\"fa\" d=\"M{1} {0}l-9 -5v10z\"/>",
                    y - 4,
                    x + 28
                );
                x + 36
            }
            Some(Mark::Back) => {
                let _ = writeln!(
                    out,
                    "<path class=\"b\" d=\"M{1} {0}h22\"/><path class=\"ba\" d=\"M{x} {0}l9 -5v10z\"/>",
                    y - 4,
                    x + 8
                );
                x + 36
            }
            Some(Mark::Icon(shape, fill, line)) => {
                icon(out, shape, x, y - 12, fill, line);
                x + 22
            }
        };
        text(out, self.class, x, y, &self.text);
    }
}

fn head(picture: &Picture) -> Vec<Line> {
    let room = 620.0;
    let mut lines = vec![Line::new("h t", 20.0, shorten(&picture.title, 20.0, true, room))];
    if !picture.facts.is_empty() {
        lines.push(Line::new("m", PLAIN, shorten(&picture.facts.join(" \u{b7} "), PLAIN, false, room)));
    }
    if let Some(saga) = &picture.saga {
        let told = format!("{} \u{b7} {}", saga.state, saga.label);
        let mut line = Line::new("n t", NAME, shorten(&told, NAME, true, room));
        line.mark = Some(Mark::Icon(Icon::of_saga(&saga.state), "t", "ti"));
        line.height += 8;
        line.width += 22;
        lines.push(line);
        if let Some(note) = &saga.note {
            lines.push(Line::new("m", PLAIN, shorten(note, PLAIN, false, room)));
        }
    }
    lines
}

fn legend(picture: &Picture) -> Vec<Line> {
    let has = |wanted: fn(&StepBox) -> bool| picture.boxes.iter().any(wanted);
    let mut items = vec![Line::marked(Mark::On, "forward")];
    if picture.boxes.iter().enumerate().any(|(at, _)| picture.has_way_back(at)) {
        items.push(Line::marked(Mark::Back, "compensation"));
    }
    if picture.pivot.is_some() {
        items.push(Line::marked(Mark::Icon(Icon::of_undo(&Undo::Pivot), "pt", "pi"), "pivot"));
    }
    if has(|step| step.condition.is_some()) {
        items.push(Line::marked(Mark::Icon(Icon::CONDITION, "m", "mi"), "conditional"));
    }
    if has(|step| step.each.is_some()) {
        items.push(Line::marked(Mark::Icon(Icon::EACH, "m", "mi"), "for each"));
    }
    for (kind, word) in [
        (super::Kind::Command, "command"),
        (super::Kind::Saga, "another saga"),
        (super::Kind::Wait, "waits for a signal"),
        (super::Kind::Delay, "delay"),
    ] {
        // With commands alone there is nothing to tell apart.
        if picture.boxes.iter().any(|step| step.kind == kind) && has(|step| step.kind != super::Kind::Command) {
            items.push(Line::marked(Mark::Icon(Icon::of_kind(kind), "t", "ti"), word));
        }
    }
    items
}

/// The legend's items with their places (pixels from the left, rows), and its height.
fn wrap(items: &[Line], room: i32) -> (Vec<(i32, i32, &Line)>, i32) {
    let (mut x, mut row) = (0, 0);
    let mut placed = Vec::with_capacity(items.len());
    for item in items {
        if x > 0 && x + item.width > room {
            (x, row) = (0, row + 1);
        }
        placed.push((x, row, item));
        x += item.width + 22;
    }
    (placed, (row + 1) * 22)
}
