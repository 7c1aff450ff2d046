//! Bugs that a world can be given, to see that they are noticed. They are planted in the simulated parts: nothing of
//! this is in what users run.

macro_rules! bugs {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, [$($guarantee:literal),*];)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[$doc])* $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The guarantees that it breaks, any of which may be noticed first.
            pub fn breaks(self) -> &'static [u8] {
                match self {
                    $(Self::$variant => &[$($guarantee),*],)*
                }
            }
        }
    };
}

bugs! {
    /// A participant does not look into its inbox: each delivery of a command takes effect.
    NoInbox = "no-inbox", [6, 7, 8];
    /// The inbox goes by the attempt instead of the idempotency key.
    InboxByAttempt = "inbox-by-attempt", [6, 7, 8, 12];
    /// The effect is committed before the inbox row.
    EffectBeforeInbox = "effect-before-inbox", [6, 8];
    /// A compensation whose action never came leaves no tombstone.
    NoTombstone = "no-tombstone", [7, 8];
    /// A compensation does not wait for an action that is under way.
    NoRowLock = "no-row-lock", [6, 7, 8];
    /// A participant answers with a refusal when it does not know what became of its transaction.
    UnknownIsRefused = "unknown-is-refused", [8, 12];
    /// The store neither locks what it reads nor looks whether it has changed.
    NoVersionCheck = "no-version-check", [3, 8, 11, 12];
    /// The store says that it has committed before it has.
    CommitLater = "commit-later", [1, 3, 8, 11, 12, 16];
    /// Of what is to be started at once, all but the first is started by a transaction of its own, later.
    RequestParted = "request-parted", [0];
    /// A key is not looked up at a start.
    NoKeyCheck = "no-key-check", [2];
    /// What an operator did is not written down.
    NoAudit = "no-audit", [15];
    /// The audit row is written by a transaction of its own, after the other.
    AuditLater = "audit-later", [15];
    /// Every tenth event is not written down.
    HistoryLost = "history-lost", [3];
    /// Only the coordinator that wrote a saga last sees to its due times.
    DueByOwner = "due-by-owner", [16];
    /// A saga that waits between two attempts is forgotten.
    RetriesForgotten = "retries-forgotten", [16];
    /// A command that was committed and not published is not published later.
    OutboxForgotten = "outbox-forgotten", [16];
    /// Messages are acknowledged as they arrive.
    AcknowledgeFirst = "acknowledge-first", [1];
    /// The broker's confirm of a command is taken for the participant's success.
    VerifiedEarly = "verified-early", [12, 13];
    /// A reply's token is not looked at.
    TokenIgnored = "token-ignored", [12, 13];
    /// The order of the steps is ignored.
    OrderIgnored = "order-ignored", [9, 10];
    /// The pivot counts as any other step.
    PivotIgnored = "pivot-ignored", [10];
    /// A time-out is taken for a refusal.
    TimeoutIsFailure = "timeout-is-failure", [8, 12, 13];
    /// The newest definition is taken for a saga of any version.
    NewestDefinition = "newest-definition", [3, 14];
    /// An ended saga is written once more.
    EndedAgain = "ended-again", [3, 4];
    /// A saga ends before its last command does.
    EndsEarly = "ends-early", [3, 11];
    /// A start is answered with the saga of its key, whatever that was started with.
    InputIgnored = "input-ignored", [2];
    /// A start that is said again is answered as if its input were another.
    RepeatRefused = "repeat-refused", [2];
    /// A command is decided for a saga that has ended.
    DecidedAfterEnd = "decided-after-end", [4];
    /// A saga that is completed is compensated beside.
    TwoEnds = "two-ends", [4, 5];
    /// Another coordinator undoes what is completed.
    CompletedUndone = "completed-undone", [5];
    /// A participant says that it is done, and commits it then.
    ReplyBeforeCommit = "reply-before-commit", [12];
    /// What a forged reply says is taken for what the genuine one put out.
    OutputForged = "output-forged", [13];
    /// A saga is moved to another version, and nobody has asked for it.
    MovedSilently = "moved-silently", [14];
    /// An operator need not say why.
    NoReason = "no-reason", [15];
    /// What is due is looked at a day later.
    DayLate = "day-late", [16];
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|bug| bug.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|bug| bug.as_str()).collect();
            format!("there is no such bug; there are {}", known.join(", "))
        })
    }
}
