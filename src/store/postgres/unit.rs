//! One unit of work: read, decide, write, commit; with checks or with locks.

use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::lines::Line;
use super::{PostgresStore, at_once, read, refused, write};
use crate::failpoint::{self, Point};
use crate::id::{CommandId, SagaId};
use crate::store::{Changes, Committed, Decide, Loaded, Locking, Started, StoreError, Wants};

impl PostgresStore {
    pub(super) async fn unit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let outcome = match wants.locking {
            // Without locks two coordinators would both take what is due.
            Locking::Checks | Locking::Trusts if wants.due == 0 => self.unit_with_checks(wants, decide).await,
            _ => self.unit_with_locks(wants, decide).await,
        };
        if let Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) = outcome {
            // Another server may answer from now on, which need not have what this one had.
            self.0.recent.forget();
        }
        outcome
    }

    /// Two round trips: look, and write what follows from it, naming the revisions that were seen.
    async fn unit_with_checks(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let mut line = self.0.lines.take().await?;
        let (loaded, unread) = self.looked(&mut line, &wants).await?;
        let changes = decide(loaded);
        let is_changed = |id: SagaId| changes.updates.iter().any(|update| update.saga.id == id);
        // Of these nothing is written that would show that they are as they were taken to be.
        let unchanged: Vec<(SagaId, u32)> = unread.into_iter().filter(|(id, _)| !is_changed(*id)).collect();
        if changes.is_empty() && unchanged.is_empty() {
            line.give_back();
            return Ok(Committed::default());
        }
        failpoint::reached_if(touches_sagas(&changes), Point::BeforeCommit);
        let committed = if at_once::write(&mut line.connection, &changes, &unchanged).await.map_err(unknown)? {
            Committed { starts: vec![Started::New; changes.starts.len()] }
        } else if !unchanged.is_empty() {
            line.give_back();
            return Err(StoreError::Conflict("a saga that was not read may have changed".to_owned()));
        } else {
            execute(&mut line.connection, "begin").await?;
            let committed = write::write(&mut line.connection, &changes).await?;
            execute(&mut line.connection, "commit").await.map_err(unknown)?;
            committed
        };
        line.give_back();
        drop(self.0.recent.keep(changes, &committed));
        Ok(committed)
    }

    /// The wanted sagas; and which of them were not read, with the revisions that they had here.
    async fn looked(&self, line: &mut Line<'_>, wants: &Wants) -> Result<(Loaded, Vec<(SagaId, u32)>), StoreError> {
        if !line.was_idle {
            self.0.recent.forget();
        }
        let (mut known, mut others) = (Vec::new(), wants.sagas.clone());
        if wants.locking == Locking::Trusts {
            (known, others) = self.0.recent.take(&wants.sagas);
        }
        // Also where there is nothing to read: for the time, and to see that the server is there before it is told to write.
        let mut loaded = match write::look(&mut line.connection, &others).await {
            // It was ended while nobody used it.
            Err(StoreError::Unavailable(_)) if line.was_idle => {
                line.renew().await?;
                self.0.recent.forget();
                known.clear();
                write::look(&mut line.connection, &wants.sagas).await?
            }
            looked => looked?,
        };
        let unread = known.iter().map(|saga| (saga.id, saga.revision)).collect();
        loaded.sagas.extend(known);
        loaded.sagas.sort_by_key(|saga| saga.id);
        Ok((loaded, unread))
    }

    /// Those of these commands that are VERIFIED, by their ids on a connection that knows no other way.
    pub(super) async fn settled_of(&self, ids: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let mut line = self.0.lines.take().await?;
        let mut settled = read::settled(&mut line.connection, ids).await;
        if matches!(settled, Err(StoreError::Unavailable(_))) && line.was_idle {
            // It was ended while nobody used it.
            line.renew().await?;
            settled = read::settled(&mut line.connection, ids).await;
        }
        // As for units of work: another server may answer from now on.
        if settled.is_err() || !line.was_idle {
            self.0.recent.forget();
        }
        let settled = settled?;
        line.give_back();
        // Somebody else has written these.
        let sagas: Vec<SagaId> = settled.iter().map(|id| id.saga).collect();
        drop(self.0.recent.take(&sagas));
        Ok(settled)
    }

    async fn unit_with_locks(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let mut line = self.0.lines.take().await?;
        match execute(&mut line.connection, "begin").await {
            // It was ended while nobody used it.
            Err(StoreError::Unavailable(_)) if line.was_idle => {
                line.renew().await?;
                execute(&mut line.connection, "begin").await?;
            }
            begun => begun?,
        }
        if !line.was_idle {
            self.0.recent.forget();
        }
        let loaded = write::load(&mut line.connection, &wants).await?;
        let changes = decide(loaded);
        let committed = write::write(&mut line.connection, &changes).await?;
        failpoint::reached_if(touches_sagas(&changes), Point::BeforeCommit);
        execute(&mut line.connection, "commit").await.map_err(unknown)?;
        line.give_back();
        drop(self.0.recent.keep(changes, &committed));
        Ok(committed)
    }
}

/// On a line, whose transaction ends with it when it is not given back.
async fn execute(line: &mut PgConnection, sql: &'static str) -> Result<(), StoreError> {
    line.execute(sql).await.map(drop).map_err(refused)
}

fn touches_sagas(changes: &Changes) -> bool {
    !changes.updates.is_empty() || !changes.starts.is_empty()
}

/// What goes wrong when a commit was sent: nobody knows whether it was carried out.
fn unknown(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unknown(why),
        error => error,
    }
}
