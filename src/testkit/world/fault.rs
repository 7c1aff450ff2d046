//! What goes wrong in a world, and how often.

use std::collections::BTreeMap;

use super::sky::Dice;

macro_rules! strikes {
    ($($variant:ident = $word:literal, $rate:literal;)*) => {
        /// The kinds of faults, as reports call them.
        pub const FAULTS: &[&str] = &[$($word,)*];

        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Strike {
            $($variant,)*
        }

        impl Strike {
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in reports.
            pub(super) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// How often it strikes at most, in thousandths of the occasions.
            fn most(self) -> u64 {
                match self {
                    $(Self::$variant => $rate,)*
                }
            }
        }
    };
}

strikes! {
    Crash = "a coordinator crashes", 16;
    Stop = "a coordinator is stopped in good order", 1_000;
    Partition = "two are cut off from each other", 1_000;
    StoreOutage = "the store is away", 1_000;
    BrokerRestart = "the broker restarts", 1_000;
    ClockJump = "the store's clock jumps", 1_000;
    ClockSkewed = "a coordinator's clock is off from the start", 1_000;
    OwnClockJump = "a coordinator's clock jumps", 1_000;
    CommitConflict = "a commit is turned down", 60;
    StoreLost = "the connection to the store is lost", 30;
    CommitSlow = "a commit takes long", 60;
    CommitUnknownApplied = "the reply to a COMMIT is lost", 60;
    CommitUnknownLater = "a COMMIT is carried out after its connection was lost", 30;
    CommitUnknownDropped = "a COMMIT is lost", 40;
    MessageLost = "a message is lost before its confirm", 100;
    ConfirmLost = "a confirm is lost", 100;
    MessageRefused = "the broker refuses a message", 40;
    MessageTwice = "a message arrives twice", 120;
    MessageLate = "a message is overtaken", 150;
    MessageVeryLate = "a message arrives after its attempt timed out", 180;
    Redelivered = "a consumer loses its connection", 60;
    ReplyForged = "a reply with a forged token", 1_000;
    ParticipantCrash = "a participant crashes", 30;
    LedgerLost = "a participant's database fails", 60;
    LedgerUnknownApplied = "the reply to a participant's COMMIT is lost", 100;
    LedgerUnknownDropped = "a participant's COMMIT is lost", 60;
    HandlerSlow = "a participant takes long", 160;
    HandlerLater = "a participant asks to be asked later", 150;
    HandlerPanics = "a participant's handler panics", 30;
    HandlerRefuses = "a participant refuses", 160;
    CompensationRefused = "a participant refuses to compensate", 200;
}

/// How often each fault strikes in one world, and how often it did.
#[derive(Clone, Debug, Default)]
pub(super) struct Strikes {
    rates: Vec<u64>,
    fired: BTreeMap<Strike, u64>,
}

impl Strikes {
    /// A mix: each kind is absent from half of all worlds, so that those that hide each other are also seen alone.
    pub(super) fn drawn(dice: &mut Dice) -> Self {
        let strength = 1 + dice.below(4);
        let rate = |strike: &Strike| {
            let (is_there, share) = (dice.below(2) == 0, strength + dice.below(5 - strength));
            if is_there { (strike.most() * share / 4).max(1) } else { 0 }
        };
        Self { rates: Strike::ALL.iter().map(rate).collect(), fired: BTreeMap::new() }
    }

    pub(super) fn rate(&self, strike: Strike) -> u64 {
        self.rates.get(strike as usize).copied().unwrap_or_default()
    }

    pub(super) fn count(&mut self, strike: Strike) {
        *self.fired.entry(strike).or_default() += 1;
    }

    pub(super) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.fired.iter().map(|(strike, count)| (strike.as_str(), *count)).collect()
    }
}
