//! Named places at which a test has a process killed: for real, by SIGKILL, so that nothing is cleaned up behind it.
//!
//! `AMENDS_FAILPOINT=coordinator.after-commit:3` kills the process the third time that it gets there;
//! `AMENDS_FAILPOINT_MARKER` names a file that is written first, so that the test sees that the fault has fired.
//!
//! Compiled in only with the cargo feature `failpoints`, which the package's own tests and examples turn on and nothing
//! that is shipped does: without it [`reached`] is empty, and no variable can kill a coordinator. A crate for failpoints
//! would bring a registry and a language of actions along, and none of those at hand counts, marks and kills.

/// Whether this program can be killed at a named place at all.
pub const COMPILED: bool = cfg!(feature = "failpoints");

/// Declares the points, with their names and the list of all of them.
macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A named place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point { $($(#[$doc])* $point,)* }

        impl Point {
            /// Every point, in the order in which a saga comes by.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name, for example `coordinator.after-commit`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// A reply with a right token was read; nothing was done about it.
    ReplyReceived = "coordinator.reply-received",
    /// Due sagas were claimed, inside the transaction.
    TimerFired = "coordinator.timer-fired",
    /// Everything is written that a commit writes about sagas, but for COMMIT.
    BeforeCommit = "coordinator.before-commit",
    /// COMMIT is through; nothing followed from it.
    AfterCommit = "coordinator.after-commit",
    /// The same, of a commit that decided a compensation.
    Compensating = "coordinator.compensating",
    /// The same, of a commit that ended a saga.
    TerminalCommit = "coordinator.terminal-commit",
    /// Commands are in line to be published.
    BeforePublish = "coordinator.before-publish",
    /// Commands were handed to the connection, and the broker has not said anything about them.
    PublishedNotConfirmed = "coordinator.published-not-confirmed",
    /// The broker has confirmed commands; that is not written down.
    Confirmed = "coordinator.confirmed",
    /// Replies are committed and not acknowledged.
    CommittedNotAcknowledged = "coordinator.committed-not-acknowledged",
    /// A migration of the schema is done, but for COMMIT.
    Migration = "coordinator.migration",
    /// An archive is written to its file, and its manifest, which makes it count, is not in place.
    ArchiveWritten = "archive.written",
    /// An archive counts; nothing was removed from the store.
    ArchiveKept = "archive.kept",
    /// A batch of archived sagas is removed from the store, but for COMMIT.
    ArchiveBeforeRemoval = "archive.before-removal",
    /// A batch of archived sagas was removed; others may follow.
    ArchiveRemoved = "archive.removed",
    /// Everything in an archive was removed from the store; its manifest does not say so.
    ArchiveNotMarked = "archive.not-marked",
    /// A participant's effect and its inbox row are written, but for COMMIT.
    ParticipantBeforeCommit = "participant.before-commit",
    /// A participant's effect and its inbox row are durable.
    ParticipantAfterCommit = "participant.after-commit",
    /// A participant knows its reply and has not published it.
    ParticipantBeforeReply = "participant.before-reply",
}

/// The process is at `point`; if that is where it is to die, this does not return.
#[inline]
pub fn reached(point: Point) {
    #[cfg(feature = "failpoints")]
    armed::reached(point);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// The same, if `condition` holds.
#[inline]
pub fn reached_if(condition: bool, point: Point) {
    if condition {
        reached(point);
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    struct Armed {
        point: Point,
        /// The process dies at this time of reaching the point, from 1.
        at: u32,
        reached: AtomicU32,
        marker: Option<PathBuf>,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn reached(point: Point) {
        let Some(armed) = ARMED.get_or_init(from_environment) else { return };
        if armed.point == point && armed.reached.fetch_add(1, Ordering::SeqCst) + 1 == armed.at {
            if let Some(marker) = &armed.marker
                && let Err(error) = std::fs::write(marker, format!("{}:{}", point.name(), armed.at))
            {
                tracing::error!(%error, "the marker cannot be written");
            }
            // Only to a process that is not there, or not one's own, can it not be sent.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }

    fn from_environment() -> Option<Armed> {
        let said = std::env::var("AMENDS_FAILPOINT").ok()?;
        let Some((point, at)) = parse(&said) else {
            tracing::error!(said, "AMENDS_FAILPOINT is not POINT or POINT:N");
            return None;
        };
        let marker = std::env::var_os("AMENDS_FAILPOINT_MARKER").map(PathBuf::from);
        Some(Armed { point, at, reached: AtomicU32::new(0), marker })
    }

    fn parse(text: &str) -> Option<(Point, u32)> {
        let (name, at) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.iter().copied().find(|point| point.name() == name)?;
        Some((point, at.parse().ok().filter(|at| *at > 0)?))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_with_or_without_a_count() {
            assert_eq!(parse("coordinator.after-commit"), Some((Point::AfterCommit, 1)));
            assert_eq!(parse("participant.before-reply:7"), Some((Point::ParticipantBeforeReply, 7)));
        }

        #[test]
        fn what_names_no_point_is_refused() {
            for text in ["", "after-commit", "coordinator.after-commit:0", "coordinator.after-commit:x"] {
                assert_eq!(parse(text), None, "{text}");
            }
        }
    }
}
