//! Faults and where they strike: `authorise-payment#2=timeout`, `undo:pick#*=fail`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::definition::{Definition, Work};
use crate::id::StepIndex;
use crate::saga::Direction;

/// What goes wrong with one attempt of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The participant refuses: `failure`.
    Fail,
    /// The participant asks to be tried again: `retry`.
    Retry,
    /// The participant takes the command and neither does it nor answers.
    Timeout,
    /// The command is lost on its way.
    Drop,
    /// The command arrives after its attempt has timed out.
    Delay,
    /// The command arrives a day later, when the saga has long moved on.
    Stale,
    /// The signal comes before the step waits for it. Only of waits.
    Early,
    /// The command arrives twice.
    Duplicate,
    /// The command is overtaken by the next one to any participant.
    Reorder,
    /// The participant sends a heartbeat first and takes longer than the time-out.
    Slow,
    /// The participant did it, and its reply is lost.
    LostReply,
    /// The participant did it, and its reply arrives after the attempt has timed out.
    LateReply,
    /// The participant did it, and its reply arrives a day later.
    StaleReply,
    /// The reply arrives twice.
    DuplicateReply,
    /// The coordinator dies before it commits what this attempt's reply says; the reply is delivered again.
    CrashBeforeCommit,
    /// The coordinator dies after it committed the decision to send this attempt, before it published it.
    CrashBeforePublish,
    /// The coordinator dies after it published this attempt, before the broker's confirm was recorded.
    CrashBeforeConfirm,
    /// The coordinator dies after it committed what this attempt's reply says, before it acknowledged it.
    CrashBeforeAck,
    /// The participant dies before its commit; the command is delivered again.
    ParticipantCrashBeforeCommit,
    /// The participant dies after its commit, before it replied; the command is delivered again.
    ParticipantCrashAfterCommit,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::Fail,
        Self::Retry,
        Self::Timeout,
        Self::Drop,
        Self::Delay,
        Self::Stale,
        Self::Early,
        Self::Duplicate,
        Self::Reorder,
        Self::Slow,
        Self::LostReply,
        Self::LateReply,
        Self::StaleReply,
        Self::DuplicateReply,
        Self::CrashBeforeCommit,
        Self::CrashBeforePublish,
        Self::CrashBeforeConfirm,
        Self::CrashBeforeAck,
        Self::ParticipantCrashBeforeCommit,
        Self::ParticipantCrashAfterCommit,
    ];

    /// The word in plans and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Retry => "retry",
            Self::Timeout => "timeout",
            Self::Drop => "drop",
            Self::Delay => "delay",
            Self::Stale => "stale",
            Self::Early => "early",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Slow => "slow",
            Self::LostReply => "lost-reply",
            Self::LateReply => "late-reply",
            Self::StaleReply => "stale-reply",
            Self::DuplicateReply => "duplicate-reply",
            Self::CrashBeforeCommit => "crash-before-commit",
            Self::CrashBeforePublish => "crash-before-publish",
            Self::CrashBeforeConfirm => "crash-before-confirm",
            Self::CrashBeforeAck => "crash-before-ack",
            Self::ParticipantCrashBeforeCommit => "participant-crash-before-commit",
            Self::ParticipantCrashAfterCommit => "participant-crash-after-commit",
        }
    }

    /// Whether it can strike a step of this kind: a wait is struck by what becomes of its signal, a delay by nothing.
    pub fn strikes(self, work: &Work) -> bool {
        match work {
            Work::Command | Work::Saga { .. } => self != Self::Early,
            Work::Wait { .. } => {
                matches!(self, Self::Timeout | Self::Drop | Self::Delay | Self::Stale | Self::Early | Self::Duplicate)
            }
            Work::Delay => false,
        }
    }

    /// Whether an attempt that it strikes leads to a further one, so that it can strike again and again.
    pub fn leads_to_another_attempt(self) -> bool {
        matches!(
            self,
            Self::Retry
                | Self::Timeout
                | Self::Drop
                | Self::Delay
                | Self::Stale
                | Self::LostReply
                | Self::LateReply
                | Self::StaleReply
        )
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FaultKind {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let text = match text {
            "failure" => "fail",
            "time-out" => "timeout",
            "lost-command" => "drop",
            other => other,
        };
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            InvalidFault(format!("there is no fault `{text}`; there are {}", known.join(", ")))
        })
    }
}

/// Which attempts of a command a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attempts {
    /// This one, from 1. The attempts before it, unless they have a fault of their own, are asked to be tried again,
    /// so that it comes to this one.
    Only(u32),
    /// Every one; where the retry policy has no limit, the first [`UNLIMITED`].
    Every,
}

/// How many attempts of a command without a limit count as all of them: at some time faults stop.
pub const UNLIMITED: u32 = 10;

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// The step's name.
    pub step: String,
    /// Its action or its compensation.
    pub direction: Direction,
    /// Which attempts.
    pub attempts: Attempts,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault of the step's action, at its first attempt.
    pub fn action(step: impl Into<String>, kind: FaultKind) -> Self {
        Self { step: step.into(), direction: Direction::Action, attempts: Attempts::Only(1), kind }
    }

    /// A fault of the step's compensation, at its first attempt.
    pub fn compensation(step: impl Into<String>, kind: FaultKind) -> Self {
        Self { direction: Direction::Compensation, ..Self::action(step, kind) }
    }

    /// At this attempt instead, from 1.
    #[must_use]
    pub fn at(self, attempt: u32) -> Self {
        Self { attempts: Attempts::Only(attempt), ..self }
    }

    /// At every attempt instead.
    #[must_use]
    pub fn always(self) -> Self {
        Self { attempts: Attempts::Every, ..self }
    }

    /// The step's place in the definition.
    ///
    /// # Errors
    /// When the definition has no such step, or the step nothing of that direction.
    pub fn place(&self, definition: &Definition) -> Result<StepIndex, InvalidFault> {
        let Some(index) = definition.find(&self.step) else {
            let known: Vec<&str> = definition.steps.iter().map(|step| step.name.as_str()).collect();
            return Err(InvalidFault(format!(
                "fault `{self}`: {} has no step `{}`; it has {}",
                definition.reference,
                self.step,
                known.join(", ")
            )));
        };
        let work = &definition.step(index).work;
        if !self.kind.strikes(work) {
            let kinds = FaultKind::ALL.into_iter().filter(|kind| kind.strikes(work)).map(FaultKind::as_str);
            let kinds: Vec<&str> = kinds.collect();
            let kinds = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
            let message = format!("fault `{self}`: a {} can be struck by {kinds}", work.as_str());
            return Err(InvalidFault(message));
        }
        if self.direction == Direction::Compensation && definition.step(index).compensation.action().is_none() {
            return Err(InvalidFault(format!("fault `{self}`: step `{}` has no compensation", self.step)));
        }
        Ok(index)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undo = if self.direction == Direction::Compensation { "undo:" } else { "" };
        match self.attempts {
            Attempts::Only(attempt) => write!(f, "{undo}{}#{attempt}={}", self.step, self.kind),
            Attempts::Every => write!(f, "{undo}{}#*={}", self.step, self.kind),
        }
    }
}

/// A fault cannot be understood, or strikes where nothing is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFault(pub(crate) String);

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let wrong = || {
            InvalidFault(format!(
                "`{text}` is no fault; write STEP#ATTEMPT=KIND, for example `authorise-payment#2=timeout`, `pick#*=drop` \
                 or, for a compensation, `undo:pick#1=fail`"
            ))
        };
        let (place, kind) = text.split_once('=').ok_or_else(wrong)?;
        let (direction, place) = match place.split_once(':') {
            None => (Direction::Action, place),
            Some(("undo" | "compensation", step)) => (Direction::Compensation, step),
            Some(("do" | "action", step)) => (Direction::Action, step),
            Some(_) => return Err(wrong()),
        };
        let (step, attempts) = match place.split_once('#') {
            None => (place, Attempts::Only(1)),
            Some((step, "*")) => (step, Attempts::Every),
            Some((step, number)) => {
                let number = number.parse().ok().filter(|&number: &u32| (1..=1_000).contains(&number));
                (step, Attempts::Only(number.ok_or_else(wrong)?))
            }
        };
        // The letters of a step's name, and an element's place: anything else cannot be a step, nor be told from the rest.
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-_[]".contains(letter);
        if step.is_empty() || !step.chars().all(is_letter) {
            return Err(wrong());
        }
        Ok(Self { step: step.to_owned(), direction, attempts, kind: kind.trim().parse()? })
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_is_written() {
        for text in ["pick#1=fail", "undo:pick#3=late-reply", "pick#*=timeout", "undo:a-b#*=crash-before-ack"] {
            assert_eq!(text.parse::<Fault>().map(|fault| fault.to_string()).as_deref(), Ok(text));
        }
        for kind in FaultKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("pick=fail".parse(), Ok(Fault::action("pick", FaultKind::Fail)));
        assert_eq!("compensation:pick=fail".parse(), Ok(Fault::compensation("pick", FaultKind::Fail)));
    }

    #[test]
    fn what_is_no_fault_is_refused_with_an_example() {
        for text in [
            "",
            "pick",
            "pick#0=fail",
            "pick#x=fail",
            "redo:pick=fail",
            "=fail",
            "#1=fail",
            "pick#9999=fail",
            "do:a:b=fail",
        ] {
            let error = text.parse::<Fault>().expect_err(text);
            assert!(error.0.contains("authorise-payment#2=timeout"), "{error}");
        }
        assert!("pick=frobnicate".parse::<Fault>().expect_err("no such kind").0.contains("late-reply"));
    }
}
