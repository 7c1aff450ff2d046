//! Icons as paths in a square of 16 by 16: fonts have them or not, and draw them as they like.

use super::{Kind, State, Undo};

/// A path; filled, or drawn as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icon {
    Filled(&'static str),
    Line(&'static str),
}

const UNDO: Icon = Icon::Line("M6 3L2.5 6.5L6 10M2.5 6.5H10A3.5 3.5 0 0 1 10 13.5H6");
const CHECK: Icon = Icon::Line("M2.5 8.5L6.5 12.5L13.5 4");
const CROSS: Icon = Icon::Line("M3.5 3.5L12.5 12.5M12.5 3.5L3.5 12.5");
const CLOCK: Icon = Icon::Line("M8 1.8A6.2 6.2 0 1 1 7.99 1.8ZM8 4.5V8L10.8 9.6");
const FLAG: Icon = Icon::Filled("M3 1.5H4.6V2.5H13.5L11 6L13.5 9.5H4.6V15H3Z");

impl Icon {
    /// A triangle that points on.
    pub const START: Self = Self::Filled("M4 2.5L13 8L4 13.5Z");
    /// A tick.
    pub const DONE: Self = CHECK;
    /// An arrow that turns back.
    pub const UNDONE: Self = UNDO;
    /// A lozenge.
    pub const CONDITION: Self = Self::Line("M8 1.5L14.5 8L8 14.5L1.5 8Z");
    /// Sheets on each other.
    pub const EACH: Self = Self::Line("M2 5.5H10.5V14H2ZM5.5 5.5V2H14V10.5H10.5");

    pub fn of_kind(kind: Kind) -> Self {
        match kind {
            // An envelope: a message to a service.
            Kind::Command => Self::Line("M1.5 3.5H14.5V12.5H1.5ZM1.5 4L8 9L14.5 4"),
            // A box in a box.
            Kind::Saga => Self::Line("M1.5 1.5H14.5V14.5H1.5ZM5 5H11V11H5Z"),
            // A bell.
            Kind::Wait => {
                Self::Line("M3 11.5C4.5 10 4 6.5 4.5 5A3.6 3.6 0 0 1 11.5 5C12 6.5 11.5 10 13 11.5ZM6.5 14H9.5")
            }
            // An hourglass.
            Kind::Delay => Self::Line(
                "M3.5 1.5H12.5M3.5 14.5H12.5M4.5 1.5C4.5 6 11.5 10 11.5 14.5M11.5 1.5C11.5 6 4.5 10 4.5 14.5",
            ),
        }
    }

    pub fn of_undo(undo: &Undo) -> Self {
        match undo {
            Undo::Action(_) => UNDO,
            Undo::Nothing => Self::Line("M8 1.8A6.2 6.2 0 1 1 7.99 1.8ZM3.8 12.2L12.2 3.8"),
            Undo::Pivot => FLAG,
            Undo::OnlyForward => Self::Line("M8 2V13.5M3.5 9L8 13.5L12.5 9"),
        }
    }

    pub fn of_state(state: State) -> Self {
        match state {
            State::Verified => CHECK,
            State::Skipped => Self::Line("M2 3.5L7 8L2 12.5M8 3.5L13 8L8 12.5"),
            State::Compensated => UNDO,
            State::Compensating => Self::Line("M6 3L2.5 6.5L6 10M2.5 6.5H10M12 6.5H14M12.5 10.5H14M9 13.5H10"),
            State::Waiting => Self::Line("M8 1.8A6.2 6.2 0 1 1 7.99 1.8Z"),
            State::Pending => CLOCK,
            State::Unknown => Self::Line("M4.5 5.5A3.5 3.5 0 1 1 9.5 8.2C8.4 8.8 8 9.3 8 10.5M8 13V14.2"),
            State::Failed => CROSS,
        }
    }

    /// The icon of a saga's state, in the word of the contract.
    pub fn of_saga(state: &str) -> Self {
        match state {
            "COMPLETED" => CHECK,
            "COMPENSATED" | "COMPENSATING" => UNDO,
            "STUCK" => Self::Line("M8 1.5L15 14H1ZM8 6V9.8M8 11.2V12.4"),
            "ABANDONED" => CROSS,
            _ => CLOCK,
        }
    }
}
