//! What became of each saga, told from the stored records alone, and whether everything adds up.

use serde::Serialize;

use super::plan::{CASES, Case, Faults, Traces};
use super::services::Books;
use crate::cli::output;
use crate::definition::Definition;
use crate::saga::{Direction, Outcome, StepStatus};
use crate::store::{HistoryRecord, SagaRecord};

/// One row of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    saga: String,
    key: String,
    state: &'static str,
    what_happened: String,
    attempts: u32,
    undone: Vec<String>,
}

/// Tells of one saga what a newcomer wants to know.
pub fn row(
    case: &Case,
    definition: &Definition,
    record: &SagaRecord,
    history: &[HistoryRecord],
    in_crash: bool,
) -> Row {
    let saga = &record.saga;
    let steps_that_are = |status| -> Vec<String> {
        let steps = definition.steps.iter().zip(&saga.steps);
        steps.filter(|(_, state)| state.status() == status).map(|(step, _)| step.name.clone()).collect()
    };
    let (undone, skipped) = (steps_that_are(StepStatus::Compensated), steps_that_are(StepStatus::Skipped));
    let attempts = record.commands.iter().filter_map(|command| command.verified.as_ref()).map(|end| end.attempt).sum();
    Row {
        saga: saga.definition.to_string(),
        key: case.key.to_owned(),
        state: saga.state.as_str(),
        what_happened: sentence(record, history, in_crash, &skipped.join(", ")),
        attempts,
        undone,
    }
}

fn sentence(record: &SagaRecord, history: &[HistoryRecord], in_crash: bool, skipped: &str) -> String {
    let mut parts = Vec::new();
    for command in &record.commands {
        let Some(end) = &command.verified else { continue };
        if end.attempt > 1 && command.direction == Direction::Action && end.outcome == Outcome::Success {
            parts.push(format!("{} was tried {} times", command.step, end.attempt));
        }
        if command.direction == Direction::Compensation && end.outcome == Outcome::Failure {
            let problem = end.problem.as_ref().map_or("it was refused", |problem| problem.title.as_str());
            parts.push(format!("undoing {} got stuck ({problem})", command.step));
        }
    }
    if history.iter().any(|entry| matches!(entry.event, crate::saga::EventKind::Operated { .. })) {
        parts.push("an operator had it tried again".to_owned());
    }
    if in_crash {
        parts.push("the coordinator was killed meanwhile".to_owned());
    }
    let (first, last) = match (record.saga.state.as_str(), &record.saga.cause) {
        ("COMPLETED", _) if skipped.is_empty() => (None, "every step is done".to_owned()),
        ("COMPLETED", _) => (None, format!("not needed: {skipped}; everything else is done")),
        ("COMPENSATED", Some(cause)) => (Some(cause.title.clone()), "all is as it was before".to_owned()),
        (state, _) => (None, format!("it is {state}")),
    };
    first.into_iter().chain(parts).chain([last]).collect::<Vec<_>>().join("; ")
}

/// The table for people.
pub fn table(rows: &[Row]) -> String {
    output::table(
        &["saga", "key", "state", "attempts", "undone", "what happened"],
        rows.iter().map(|row| {
            let undone = if row.undone.is_empty() { "-".to_owned() } else { row.undone.join(", ") };
            vec![
                row.saga.clone(),
                row.key.clone(),
                row.state.to_owned(),
                row.attempts.to_string(),
                undone,
                row.what_happened.clone(),
            ]
        }),
    )
}

/// Some lines on what is left, from the services' own databases.
pub fn sums(books: &Books) -> String {
    let euros = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
    let Traces { confirmed, paid, taken, bookings, members, points, gifts } = books.traces;
    format!(
        "the books of the eight services: {confirmed} orders confirmed, {} open; {bookings} flights, rooms and cars \
         booked, {} held;\nmembers {members}, points {points}, gifts {gifts}; money {} + {} paid = {}; \
         records {} + {taken} taken = {}",
        books.open,
        books.held,
        euros(books.balance),
        euros(paid),
        euros(books.opening),
        books.free,
        books.stocked,
    )
}

/// Everything that is not as it should be.
pub fn complaints(rows: &[Row], books: &Books, faults: &Faults, replayed: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (case, row) in CASES.iter().zip(rows) {
        if row.state != case.ends {
            wrong.push(format!("{} is {}, not {}", case.key, row.state, case.ends));
        }
    }
    for fault in faults.missing() {
        wrong.push(format!("the planned fault {fault:?} did not happen"));
    }
    if replayed == 0 {
        wrong.push("no command came twice, although the coordinator was killed".to_owned());
    }
    let traces = CASES.iter().map(Case::leaves).fold(Traces::default(), |all, one| all + one);
    let expected = Books {
        open: 0,
        held: 0,
        opening: books.opening,
        balance: books.opening - traces.paid,
        stocked: books.stocked,
        free: books.stocked - traces.taken,
        traces,
    };
    if *books != expected {
        wrong.push(format!("the books do not add up: {}; expected were {}", sums(books), sums(&expected)));
    }
    wrong
}
