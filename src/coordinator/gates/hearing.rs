//! Whether it is here that replies arrive: of several coordinators one may hear all of them. Time-outs, which are seen by
//! whoever looks first, say nothing here of a participant whose answers are not heard.

use tokio::time::Instant;

use super::circuit::FAILING;

#[derive(Default)]
pub(super) struct Hearing {
    heard: Option<Instant>,
    is_deaf: bool,
}

impl Hearing {
    /// A reply has arrived here.
    pub(super) fn hears(&mut self) {
        *self = Self { heard: Some(Instant::now()), is_deaf: false };
    }

    /// One has arrived elsewhere. Returns whether it is known only by this that none does here: none came for long.
    pub(super) fn overheard(&mut self) -> bool {
        let was_deaf = self.is_deaf;
        self.is_deaf |= self.heard.is_none_or(|heard| heard.elapsed() >= FAILING);
        self.is_deaf && !was_deaf
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }
}
