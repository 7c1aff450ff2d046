//! A unit of work: in its turn, decided before it where that can be.

use chrono::TimeDelta;
use futures_util::future::maybe_done;
use futures_util::poll;

use super::write::{self, Statements, States};
use super::writer::Lent;
use super::{SqliteStore, refused};
use crate::clock::Timestamp;
use crate::failpoint::{self, Point};
use crate::saga::Saga;
use crate::store::recent::Leftover;
use crate::store::task::to_the_end;
use crate::store::{Changes, Committed, Decide, Loaded, Locking, StoreError, Wants};

/// What was decided so long before its turn is refused, so that it is decided again: its times are those of then.
const HOLDS: TimeDelta = TimeDelta::seconds(3);

/// Sagas as they were written here last.
struct Taken {
    sagas: Vec<Saga>,
    /// How often all that is remembered had been forgotten before.
    forgotten: u64,
}

/// What is to be written.
struct Decided {
    changes: Changes,
    statements: Statements,
}

/// A unit of work that is decided and bound, before the one in front of it is committed.
struct Ahead {
    decided: Decided,
    at: Timestamp,
    /// Whether it goes by sagas that were remembered, and see [`Taken`].
    has_sagas: bool,
    forgotten: u64,
}

impl SqliteStore {
    pub(super) async fn in_turn(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let store = self.clone();
        // Its place in the order of units, and its sagas, are taken before anything else is done: whoever comes later finds
        // them gone, and waits until this one has written.
        let mut turn = Box::pin(maybe_done(self.0.turns.clone().lock_owned()));
        let _ = poll!(&mut turn);
        let taken = self.taken(&wants);
        to_the_end(async move {
            let ahead = match taken {
                Some(taken) => Ok(store.ahead(taken, decide)),
                None => Err(decide),
            };
            let writing = store.clone();
            let work = async move {
                (&mut turn).await;
                let _turn = turn.as_mut().take_output();
                let mut lent = store.0.writer.lend().await?;
                let outcome = match ahead {
                    Ok(ahead) => store.follow(&mut lent, ahead).await,
                    Err(decide) => store.unit(&mut lent, wants, decide).await,
                };
                if outcome.is_err() {
                    store.0.recent.forget();
                }
                lent.give_back(outcome).await
            };
            let (committed, leftover) = writing.0.hand.run(work).await?;
            // By now it is the next one's turn.
            drop(leftover);
            Ok(committed)
        })
        .await
    }

    async fn unit(
        &self,
        lent: &mut Lent<'_>,
        wants: Wants,
        decide: Decide,
    ) -> Result<(Committed, Leftover), StoreError> {
        self.begin(lent).await?;
        let now = self.0.clock.now();
        let (mut sagas, others) = self.0.recent.take(&wants.sagas);
        if !others.is_empty() || wants.due > 0 {
            sagas.extend(write::load(&mut lent.connection, &others, &wants, now).await?);
            sagas.sort_by_key(|saga| saga.id);
        }
        let decided = decided(decide, Loaded { now, sagas });
        self.write_down(lent, decided).await
    }

    /// What a unit can be decided by before it is its turn: all that is wanted, if it was written here last.
    fn taken(&self, wants: &Wants) -> Option<Taken> {
        let forgotten = self.0.recent.forgotten();
        let may_be_ahead = wants.locking == Locking::Trusts && wants.due == 0;
        let mut sagas = self.0.recent.take_all(&wants.sagas).filter(|_| may_be_ahead)?;
        sagas.sort_by_key(|saga| saga.id);
        Some(Taken { sagas, forgotten })
    }

    fn ahead(&self, Taken { sagas, forgotten }: Taken, decide: Decide) -> Ahead {
        let has_sagas = !sagas.is_empty();
        let at = self.0.clock.now();
        let decided = decided(decide, Loaded { now: at, sagas });
        Ahead { decided, at, has_sagas, forgotten }
    }

    /// Writes what was decided before, unless what it was decided by holds no longer.
    async fn follow(
        &self,
        lent: &mut Lent<'_>,
        Ahead { decided, at, has_sagas, forgotten }: Ahead,
    ) -> Result<(Committed, Leftover), StoreError> {
        let is_stale = || has_sagas && self.0.recent.forgotten() != forgotten;
        let stale = || {
            StoreError::Conflict(
                "a unit of work failed before this one, it waited too long, or others have written".to_owned(),
            )
        };
        if is_stale() {
            // There is nothing to wait for.
            return Err(stale());
        }
        self.begin(lent).await?;
        if is_stale() || self.0.clock.now() - at > HOLDS {
            return Err(stale());
        }
        self.write_down(lent, decided).await
    }

    /// From here on nobody else writes: what was written here last is as it is, unless others wrote after it.
    async fn begin(&self, lent: &mut Lent<'_>) -> Result<(), StoreError> {
        let version = lent.begin().await?;
        if lent.seen.replace(version) != Some(version) {
            self.0.recent.forget();
        }
        Ok(())
    }

    async fn write_down(
        &self,
        lent: &mut Lent<'_>,
        Decided { changes, statements }: Decided,
    ) -> Result<(Committed, Leftover), StoreError> {
        let committed = write::write(&mut lent.connection, &changes, statements).await?;
        let touches_sagas = !changes.updates.is_empty() || !changes.starts.is_empty();
        failpoint::reached_if(touches_sagas, Point::BeforeCommit);
        lent.commit().await.map_err(|error| match refused(error) {
            // The write-ahead log may have reached the disk with the commit in it.
            StoreError::Unavailable(why) => StoreError::Unknown(why),
            error => error,
        })?;
        let leftover = self.0.recent.keep(changes, &committed);
        Ok((committed, leftover))
    }
}

fn decided(decide: Decide, loaded: Loaded) -> Decided {
    let states = States::of(&loaded.sagas);
    let changes = decide(loaded);
    let statements = Statements::of(&changes, states);
    Decided { changes, statements }
}
