//! A step's state as it is written, before its parts are put together. Read on every commit for every step, so that it is
//! one flat object for serde: deriving from the tags and flattened parts of [`StepState`] would put each field aside first.

use serde::Deserialize;

use super::state::{CommandState, CompensationState, Owed, Phase, Problem, Skip, StepState};
use crate::clock::Timestamp;
use crate::id::Seq;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Waiting,
    Pending,
    Verified,
    Failed,
    Unknown,
    Skipped,
    Compensating,
    Compensated,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wait {
    Sending,
    Awaiting,
    BackingOff,
    Waiting,
    Held,
}

#[derive(Deserialize)]
pub(super) struct Step {
    s: Status,
    seq: Option<Seq>,
    attempts: Option<u32>,
    generation: Option<u32>,
    problem: Option<Problem>,
    by: Option<Skip>,
    owed: Option<Owed>,
    compensation: Option<CompensationState>,
    g: Option<u32>,
    a: Option<u32>,
    #[serde(default)]
    b: u32,
    last: Option<Problem>,
    p: Option<Wait>,
    due: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Undoing {
    Pending,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
pub(super) struct Compensation {
    c: Undoing,
    seq: Option<Seq>,
    attempts: Option<u32>,
    generation: Option<u32>,
    problem: Option<Problem>,
    g: Option<u32>,
    a: Option<u32>,
    #[serde(default)]
    b: u32,
    last: Option<Problem>,
    p: Option<Wait>,
    due: Option<Timestamp>,
}

fn missing(what: &str) -> String {
    format!("missing field `{what}`")
}

/// The fields that stand for a command under way.
struct Command {
    seq: Option<Seq>,
    g: Option<u32>,
    a: Option<u32>,
    b: u32,
    last: Option<Problem>,
    p: Option<Wait>,
    due: Option<Timestamp>,
}

impl TryFrom<Command> for CommandState {
    type Error = String;

    fn try_from(Command { seq, g, a, b, last, p, due }: Command) -> Result<Self, String> {
        let due = due.ok_or_else(|| missing("due"))?;
        Ok(Self {
            seq: seq.ok_or_else(|| missing("seq"))?,
            generation: g.ok_or_else(|| missing("g"))?,
            attempt: a.ok_or_else(|| missing("a"))?,
            base: b,
            last,
            phase: match p.ok_or_else(|| missing("p"))? {
                Wait::Sending => Phase::Sending(due),
                Wait::Awaiting => Phase::Awaiting(due),
                Wait::BackingOff => Phase::BackingOff(due),
                Wait::Waiting => Phase::Waiting(due),
                Wait::Held => Phase::Held(due),
            },
        })
    }
}

impl TryFrom<Step> for StepState {
    type Error = String;

    fn try_from(written: Step) -> Result<Self, String> {
        let Step { s, seq, attempts, generation, problem, by, owed, compensation, g, a, b, last, p, due } = written;
        let sent = || seq.ok_or_else(|| missing("seq"));
        let attempts = || attempts.ok_or_else(|| missing("attempts"));
        let generation = || generation.ok_or_else(|| missing("generation"));
        let owed = || owed.ok_or_else(|| missing("owed"));
        Ok(match s {
            Status::Waiting => Self::Waiting,
            Status::Pending => Self::Pending { command: Command { seq, g, a, b, last, p, due }.try_into()? },
            Status::Verified => Self::Verified { seq: sent()?, attempts: attempts()?, generation: generation()? },
            Status::Failed => {
                let problem = problem.ok_or_else(|| missing("problem"))?;
                Self::Failed { seq, attempts: attempts()?, generation: generation()?, problem }
            }
            Status::Unknown => {
                let problem = problem.ok_or_else(|| missing("problem"))?;
                Self::Unknown { seq: sent()?, attempts: attempts()?, generation: generation()?, problem }
            }
            Status::Skipped => Self::Skipped { by: by.ok_or_else(|| missing("by"))? },
            Status::Compensating => {
                let compensation = compensation.ok_or_else(|| missing("compensation"))?;
                Self::Compensating { owed: owed()?, compensation }
            }
            Status::Compensated => Self::Compensated { owed: owed()?, seq: sent()?, attempts: attempts()? },
        })
    }
}

impl TryFrom<Compensation> for CompensationState {
    type Error = String;

    fn try_from(written: Compensation) -> Result<Self, String> {
        let Compensation { c, seq, attempts, generation, problem, g, a, b, last, p, due } = written;
        let attempts = || attempts.ok_or_else(|| missing("attempts"));
        let generation = || generation.ok_or_else(|| missing("generation"));
        let problem = || problem.ok_or_else(|| missing("problem"));
        Ok(match c {
            Undoing::Pending => Self::Pending { command: Command { seq, g, a, b, last, p, due }.try_into()? },
            Undoing::Failed => {
                Self::Failed { seq, attempts: attempts()?, generation: generation()?, problem: problem()? }
            }
            Undoing::Unknown => {
                let seq = seq.ok_or_else(|| missing("seq"))?;
                Self::Unknown { seq, attempts: attempts()?, generation: generation()?, problem: problem()? }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn states() -> Vec<StepState> {
        let at = DateTime::from_timestamp(1_790_000_000, 123_456_000).expect("a time");
        let problem = || Problem { kind: "k".to_owned(), title: String::new(), detail: Some("d".to_owned()) };
        let owed = || Owed { seq: Seq(1), attempts: 2, generation: 3, known: false };
        let command = |phase: fn(Timestamp) -> Phase, base, last| CommandState {
            seq: Seq(4),
            generation: 5,
            attempt: 6,
            base,
            last,
            phase: phase(at),
        };
        let compensating = |compensation| StepState::Compensating { owed: owed(), compensation };
        let skipped = |by| StepState::Skipped { by };
        let (seq, attempts, generation) = (Seq(7), 8, 9);
        vec![
            StepState::Waiting,
            StepState::Pending { command: command(Phase::Sending, 0, None) },
            StepState::Pending { command: command(Phase::Awaiting, 2, Some(problem())) },
            StepState::Pending { command: command(Phase::BackingOff, 0, Some(problem())) },
            StepState::Pending { command: command(Phase::Waiting, 0, None) },
            StepState::Pending { command: command(Phase::Held, 0, None) },
            StepState::Verified { seq, attempts, generation },
            StepState::Failed { seq: Some(seq), attempts, generation, problem: problem() },
            StepState::Failed { seq: None, attempts, generation, problem: problem() },
            StepState::Unknown { seq, attempts, generation, problem: problem() },
            skipped(Skip::Condition),
            skipped(Skip::TimedOut),
            skipped(Skip::Operator),
            skipped(Skip::OperatorAfterSend { owed: owed() }),
            skipped(Skip::OperatorCompensation { owed: owed() }),
            compensating(CompensationState::Pending { command: command(Phase::Sending, 1, None) }),
            compensating(CompensationState::Failed { seq: None, attempts, generation, problem: problem() }),
            compensating(CompensationState::Unknown { seq, attempts, generation, problem: problem() }),
            StepState::Compensated { owed: owed(), seq, attempts },
        ]
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for state in states() {
            let text = serde_json::to_string(&state).expect("written");
            assert_eq!(serde_json::from_str::<StepState>(&text).expect("read"), state, "{text}");
        }
    }

    #[test]
    fn a_field_that_is_missing_is_named() {
        for (text, field) in [
            (r#"{"s":"verified","attempts":1,"generation":1}"#, "seq"),
            (r#"{"s":"pending","seq":1,"g":1,"a":1,"p":"sending"}"#, "due"),
            (r#"{"s":"compensating","owed":{"seq":1,"attempts":1,"generation":1,"known":true}}"#, "compensation"),
            (r#"{"seq":1}"#, "s"),
        ] {
            let said = serde_json::from_str::<StepState>(text).expect_err(text).to_string();
            assert!(said.contains(&format!("missing field `{field}`")), "{text}: {said}");
        }
    }
}
