//! What `amends top` shows, and how it is drawn.

use chrono::{DateTime, Utc};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState};

use crate::cli::output::{escape, table};
use crate::client::views::{OverviewView, ParticipantActivityView, StateCountView, StuckGroupView};

/// What is known, and what the person has chosen.
pub(super) struct Screen {
    found: OverviewView,
    url: String,
    pub(super) every: f64,
    pub(super) is_paused: bool,
    /// Why there is nothing newer.
    pub(super) problem: Option<String>,
    pub(super) causes: TableState,
    colours: bool,
}

impl Screen {
    pub(super) fn new(found: OverviewView, url: String, every: f64) -> Self {
        let mut causes = TableState::default();
        causes.select_first();
        let colours = crate::cli::output::is_lively();
        Self { found, url, every, is_paused: false, problem: None, causes, colours }
    }

    /// Something newer. What was chosen stays chosen where it is still there.
    pub(super) fn see(&mut self, found: OverviewView) {
        let same = |one: &StuckGroupView, other: &StuckGroupView| {
            (&one.saga, one.version, &one.step, &one.error, &one.direction)
                == (&other.saga, other.version, &other.step, &other.error, &other.direction)
        };
        let chosen = self.chosen().cloned();
        let at = chosen.and_then(|chosen| found.stuck.iter().position(|group| same(group, &chosen)));
        self.found = found;
        self.problem = None;
        self.causes.select(Some(at.unwrap_or(0)));
    }

    fn chosen(&self) -> Option<&StuckGroupView> {
        self.found.stuck.get(self.causes.selected()?)
    }

    /// The command that lists the sagas of the chosen cause.
    pub(super) fn command(&self) -> Option<String> {
        self.chosen().map(|group| format!("amends stuck --saga {}", group.saga))
    }

    fn style(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn state(&self, state: &str) -> Style {
        match state {
            "STUCK" => self.style(Color::Red),
            "RUNNING" => self.style(Color::Blue),
            "COMPENSATING" => self.style(Color::Yellow),
            "COMPLETED" => self.style(Color::Green),
            _ => Style::new(),
        }
    }
}

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let services = u16::try_from(screen.found.participants.len()).unwrap_or(u16::MAX).clamp(1, 10) + 3;
    let [head, states, charts, causes, participants, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Min(5),
        Constraint::Length(services),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, screen, head);
    let mut line = Line::default();
    for count in &screen.found.states {
        let style = screen.state(&count.state).add_modifier(Modifier::BOLD);
        line.push_span(Span::styled(many(count), style));
        line.push_span(format!(" {}   ", count.state));
    }
    frame.render_widget(Paragraph::new(line), states);
    draw_charts(frame, screen, charts);
    draw_causes(frame, screen, causes);
    draw_participants(frame, screen, participants);
    let keys = "q quit  p pause  ↑↓ choose  Enter list its sagas";
    let foot_line = screen.command().map_or_else(|| keys.to_owned(), |command| format!("{keys}: {command}"));
    frame.render_widget(Paragraph::new(foot_line).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn draw_head(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let mut line = Line::from(vec![
        Span::styled("amends top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {}  {}", screen.url, screen.found.at.format("%H:%M:%S UTC"))),
    ]);
    if screen.is_paused {
        line.push_span(Span::styled("  PAUSED", screen.style(Color::Yellow)));
    }
    if let Some(problem) = &screen.problem {
        line.push_span(Span::styled(format!("  {}", escape(problem)), screen.style(Color::Red)));
    }
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_charts(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let activity = &screen.found.activity;
    let last = |values: &[u64]| values.iter().rev().copied().find(|value| *value > 0).unwrap_or_default();
    let charts = [
        (format!("started, last hour: {}", activity.started.iter().sum::<u64>()), &activity.started, Color::Blue),
        (format!("ended: {}", activity.ended.iter().sum::<u64>()), &activity.ended, Color::Green),
        (format!("p95: {} ms", last(&activity.p95_ms)), &activity.p95_ms, Color::Magenta),
    ];
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    for ((title, values, colour), area) in charts.into_iter().zip(areas) {
        let block = Block::new().borders(Borders::TOP).title(title);
        // The newest minutes, as many as there is room for.
        let from = values.len().saturating_sub(usize::from(area.width));
        let values = values.get(from..).unwrap_or_default();
        frame.render_widget(Sparkline::default().block(block).data(values).style(screen.style(colour)), area);
    }
}

fn draw_causes(frame: &mut Frame<'_>, screen: &mut Screen, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title("stuck, by cause");
    if screen.found.stuck.is_empty() {
        frame.render_widget(Paragraph::new("nothing is stuck").block(block), area);
        return;
    }
    let rows: Vec<Row<'_>> = screen.found.stuck.iter().map(|group| Row::new(cause(group, screen.found.at))).collect();
    let widths = [
        Constraint::Length(6),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Length(12),
        Constraint::Length(8),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(CAUSES).style(Style::new().add_modifier(Modifier::DIM)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    frame.render_stateful_widget(table, area, &mut screen.causes);
}

fn draw_participants(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title("participants");
    let rows = screen.found.participants.iter().map(|service| Row::new(participant(service, screen.found.at)));
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(PARTICIPANTS).style(Style::new().add_modifier(Modifier::DIM)))
        .block(block);
    frame.render_widget(table, area);
}

const CAUSES: [&str; 6] = ["sagas", "error", "at", "definition", "way", "since"];
const PARTICIPANTS: [&str; 5] = ["participant", "unanswered", "oldest", "settled", "failed"];

fn cause(group: &StuckGroupView, now: DateTime<Utc>) -> Vec<String> {
    let at = match group.participant.as_str() {
        "" => group.step.clone(),
        participant => format!("{participant}.{}", group.action),
    };
    let way = if group.direction == "action" { "forward" } else { "back" };
    vec![
        group.count.to_string(),
        escape(&group.error),
        escape(&at),
        format!("{} v{}", escape(&group.saga), group.version),
        way.to_owned(),
        since(group.since, now),
    ]
}

fn participant(service: &ParticipantActivityView, now: DateTime<Utc>) -> Vec<String> {
    let failed = match service.failed.saturating_mul(1_000).checked_div(service.settled) {
        Some(tenths) => format!("{}.{} %", tenths / 10, tenths % 10),
        None => "-".to_owned(),
    };
    vec![
        escape(&service.participant),
        service.unanswered.to_string(),
        service.oldest.map_or_else(|| "-".to_owned(), |oldest| since(oldest, now)),
        service.settled.to_string(),
        failed,
    ]
}

fn many(count: &StateCountView) -> String {
    format!("{}{}", count.count, if count.more { "+" } else { "" })
}

fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = now.signed_duration_since(then).num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// All of it as text.
pub(super) fn text(found: &OverviewView) -> String {
    let states: Vec<String> = found.states.iter().map(|count| format!("{} {}", many(count), count.state)).collect();
    let activity = &found.activity;
    let (started, ended): (u64, u64) = (activity.started.iter().sum(), activity.ended.iter().sum());
    let causes = match found.stuck.is_empty() {
        true => "nothing is stuck".to_owned(),
        false => table(&CAUSES, found.stuck.iter().map(|group| cause(group, found.at))),
    };
    let participants = table(&PARTICIPANTS, found.participants.iter().map(|service| participant(service, found.at)));
    format!("{}\nlast hour: {started} started, {ended} ended\n\n{causes}\n\n{participants}", states.join("  "))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::client::views::ActivityView;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn group(saga: &str, count: u64) -> StuckGroupView {
        StuckGroupView {
            saga: saga.to_owned(),
            version: 1,
            step: "pick".to_owned(),
            participant: "warehouse".to_owned(),
            action: "pick".to_owned(),
            direction: "action".to_owned(),
            error: "out\u{1b}[31m".to_owned(),
            count,
            since: at("2026-01-31T11:58:00Z"),
        }
    }

    fn found(stuck: Vec<StuckGroupView>) -> OverviewView {
        let state = |state: &str, count, more| StateCountView { state: state.to_owned(), count, more };
        OverviewView {
            at: at("2026-01-31T12:00:00Z"),
            states: vec![state("STUCK", 12, false), state("COMPLETED", 10_000, true)],
            stuck,
            activity: ActivityView {
                started: (0..60).collect(),
                ended: (0..60).rev().collect(),
                p50_ms: vec![5; 60],
                p95_ms: vec![40; 60],
            },
            participants: vec![ParticipantActivityView {
                participant: "warehouse".to_owned(),
                unanswered: 3,
                oldest: Some(at("2026-01-31T10:00:00Z")),
                settled: 1_000,
                failed: 25,
            }],
        }
    }

    fn screen(stuck: Vec<StuckGroupView>) -> Screen {
        Screen { colours: false, ..Screen::new(found(stuck), "http://127.0.0.1:7070".to_owned(), 2.0) }
    }

    #[test]
    fn a_screen_shows_what_is_stuck_and_steers_no_terminal() {
        let mut terminal = Terminal::new(TestBackend::new(90, 22)).expect("a terminal");
        let mut screen = screen(vec![group("place-order", 12)]);
        terminal.draw(|frame| draw(frame, &mut screen)).expect("drawn");
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn a_screen_too_small_for_anything_is_drawn_all_the_same() {
        for (width, height) in [(1, 1), (5, 3), (20, 200), (300, 2)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
            let mut screen = screen(vec![group("place-order", 12)]);
            terminal.draw(|frame| draw(frame, &mut screen)).expect("drawn");
        }
    }

    #[test]
    fn what_was_chosen_stays_chosen_while_others_come_before_it() {
        let mut screen = screen(vec![group("place-order", 12), group("return-order", 3)]);
        screen.causes.select_next();
        assert_eq!(screen.command().as_deref(), Some("amends stuck --saga return-order"));
        screen.see(found(vec![group("onboard", 40), group("place-order", 12), group("return-order", 3)]));
        assert_eq!(screen.command().as_deref(), Some("amends stuck --saga return-order"));
        screen.see(found(Vec::new()));
        assert_eq!(screen.command(), None);
    }

    #[test]
    fn off_a_terminal_everything_is_text() {
        let text = text(&found(vec![group("place-order", 12)]));
        assert!(text.starts_with("12 STUCK  10000+ COMPLETED\nlast hour: 1770 started, 1770 ended\n"), "{text}");
        assert!(text.contains("warehouse.pick"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
