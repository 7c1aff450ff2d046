//! A participant's database: an inbox and effects, in transactions that lock what they claim. The SDK's own rules and
//! runner work on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::Notify;

use super::bug::Bug;
use super::evidence::{Effect, Evidence};
use super::fault::Strike;
use super::sky::{Life, Place, Sky};
use crate::message::Command;
use crate::participant::{Called, InboxEntry, Ledger, Pulse, Recorded, Row, refuse, retry_after};
use crate::saga::Direction;

/// A database. Clones are the same one.
#[derive(Clone)]
pub(super) struct Database(Arc<Inner>);

struct Inner {
    sky: Sky,
    evidence: Evidence,
    bug: Option<Bug>,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// The inbox.
    rows: BTreeMap<String, Row>,
    /// Which transaction has claimed a key.
    locks: BTreeMap<String, u64>,
    begun: u64,
    /// Whose transactions are open.
    open: BTreeMap<u64, (Place, u32)>,
    /// Numbers the outputs, so that no two are alike.
    done: u64,
}

impl Database {
    pub(super) fn new(sky: Sky, evidence: Evidence, bug: Option<Bug>) -> Self {
        Self(Arc::new(Inner { sky, evidence, bug, state: Mutex::default(), freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, bug: Bug) -> bool {
        self.0.bug == Some(bug)
    }

    /// What the inbox says of a command.
    pub(super) fn row(&self, key: &str) -> Option<Row> {
        let state = self.state();
        let by_attempt = || state.rows.range(format!("{key}#")..format!("{key}$")).next().map(|(_, row)| row);
        state.rows.get(key).or_else(|| by_attempt().filter(|_| self.has(Bug::InboxByAttempt))).cloned()
    }

    /// The connections of a process vanish with it, and so does whatever they hold.
    pub(super) fn disconnect(&self, life: &Life) {
        let open = self.state().open.clone();
        for (transaction, _) in open.into_iter().filter(|(_, of)| *of == (life.place, life.number)) {
            self.release(transaction);
        }
    }

    fn release(&self, transaction: u64) {
        let mut state = self.state();
        state.open.remove(&transaction);
        state.locks.retain(|_, holder| *holder != transaction);
        drop(state);
        self.0.freed.notify_waiters();
    }

    /// With a bug: what was done is answered with a refusal from now on.
    fn refuse_after_all(&self, key: &str) {
        if let Some(row) = self.state().rows.get_mut(key) {
            *row = Row::Done(Recorded::Failure(r#"{"type":"database","title":"lost"}"#.to_owned()));
        }
    }

    fn write(&self, rows: Vec<(String, Row)>, effects: Vec<Effect>) {
        let mut state = self.state();
        for (key, row) in rows {
            if row == Row::Tombstone && self.has(Bug::NoTombstone) {
                continue;
            }
            state.rows.insert(key, row);
        }
        drop(state);
        for effect in effects {
            self.0.sky.note(format_args!("+ {} takes effect", effect.key));
            self.0.evidence.seen().effects.push(effect);
        }
    }
}

/// The database as one process sees it.
pub(super) struct SimLedger {
    pub(super) database: Database,
    pub(super) life: Life,
}

/// An open transaction.
pub(super) struct SimTransaction {
    number: u64,
    database: Database,
    life: Life,
    rows: Vec<(String, Row)>,
    effects: Vec<Effect>,
    key: String,
}

impl SimTransaction {
    /// Whether this process crashes here.
    async fn may_crash(&self) {
        if self.database.0.sky.strikes(Strike::ParticipantCrash) {
            self.life.die();
        }
        self.life.go_on().await;
    }
}

impl Drop for SimTransaction {
    fn drop(&mut self) {
        self.database.release(self.number);
    }
}

fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other("the connection was lost"))
}

#[async_trait]
impl Ledger for SimLedger {
    type Transaction = SimTransaction;
    type Handler = Work;

    async fn begin(&self) -> Result<SimTransaction, sqlx::Error> {
        self.life.go_on().await;
        let (database, life) = (self.database.clone(), self.life.clone());
        database.0.sky.travel().await;
        life.go_on().await;
        if database.0.sky.is_cut(life.place, Place::Database) {
            database.0.sky.sleep(100, 1_000).await;
            life.go_on().await;
            return Err(sqlx::Error::PoolTimedOut);
        }
        if database.0.sky.strikes(Strike::LedgerLost) {
            return Err(sqlx::Error::PoolTimedOut);
        }
        let number = {
            let mut state = database.state();
            state.begun += 1;
            let number = state.begun;
            state.open.insert(number, (life.place, life.number));
            number
        };
        let (rows, effects, key) = (Vec::new(), Vec::new(), String::new());
        Ok(SimTransaction { number, database, life, rows, effects, key })
    }

    async fn claim(transaction: &mut SimTransaction, entry: &InboxEntry<'_>) -> Result<bool, sqlx::Error> {
        transaction.life.go_on().await;
        let database = transaction.database.clone();
        let is_own = entry.is_own();
        let mut key = entry.key.to_owned();
        if is_own && database.has(Bug::InboxByAttempt) {
            key = format!("{key}#{}", entry.command.attempt);
        }
        if is_own {
            transaction.key.clone_from(&key);
        }
        if is_own && database.has(Bug::NoInbox) {
            return Ok(true);
        }
        loop {
            {
                if database.row(&key).is_some() {
                    return Ok(false);
                }
                let mut state = database.state();
                let is_free = state.locks.get(&key).is_none_or(|holder| *holder == transaction.number);
                if is_free || database.has(Bug::NoRowLock) {
                    state.locks.insert(key.clone(), transaction.number);
                    drop(state);
                    if !is_own {
                        transaction.rows.push((key, Row::Tombstone));
                    }
                    return Ok(true);
                }
            }
            database.0.freed.notified().await;
            transaction.life.go_on().await;
        }
    }

    async fn read(transaction: &mut SimTransaction, key: &str) -> Result<Option<Row>, sqlx::Error> {
        transaction.life.go_on().await;
        let is_own = transaction.key.split('#').next() == Some(key);
        Ok(transaction.database.row(if is_own { &transaction.key } else { key }))
    }

    async fn record(transaction: &mut SimTransaction, _: &str, reply: &Recorded) -> Result<(), sqlx::Error> {
        transaction.life.go_on().await;
        let key = transaction.key.clone();
        transaction.rows.push((key, Row::Done(reply.clone())));
        Ok(())
    }

    async fn commit(mut transaction: SimTransaction) -> Result<(), sqlx::Error> {
        let sky = transaction.database.0.sky.clone();
        transaction.may_crash().await;
        sky.travel().await;
        transaction.life.go_on().await;
        let is_cut = sky.is_cut(transaction.life.place, Place::Database);
        if is_cut || sky.strikes(Strike::LedgerUnknownDropped) {
            return Err(lost());
        }
        let (rows, effects) = (std::mem::take(&mut transaction.rows), std::mem::take(&mut transaction.effects));
        let database = transaction.database.clone();
        if database.has(Bug::ReplyBeforeCommit) {
            tokio::spawn(async move {
                sky.sleep(1, 60).await;
                if !transaction.life.is_over() {
                    database.write(rows, effects);
                }
                drop(transaction);
            });
            return Ok(());
        }
        if database.has(Bug::EffectBeforeInbox) {
            database.write(Vec::new(), effects);
            transaction.may_crash().await;
            sky.travel().await;
            transaction.life.go_on().await;
            database.write(rows, Vec::new());
        } else {
            database.write(rows, effects);
        }
        database.release(transaction.number);
        transaction.may_crash().await;
        if sky.strikes(Strike::LedgerUnknownApplied) {
            if database.has(Bug::UnknownIsRefused) {
                database.refuse_after_all(&transaction.key);
            }
            return Err(lost());
        }
        sky.travel().await;
        transaction.life.go_on().await;
        Ok(())
    }

    async fn rollback(transaction: SimTransaction) -> Result<(), sqlx::Error> {
        transaction.life.go_on().await;
        drop(transaction);
        Ok(())
    }

    async fn call(
        handler: &Work,
        mut transaction: SimTransaction,
        command: &Arc<Command>,
        _: &Pulse,
    ) -> (Called, Option<SimTransaction>) {
        let result = handler.carry_out(&mut transaction, command).await;
        transaction.life.go_on().await;
        (result, Some(transaction))
    }
}

/// What a participant does for an action: it makes one effect, and puts out what any expression of any saga reads.
#[derive(Clone, Copy)]
pub(super) struct Work;

impl Work {
    async fn carry_out(&self, transaction: &mut SimTransaction, command: &Arc<Command>) -> Called {
        let sky = transaction.database.0.sky.clone();
        if sky.strikes(Strike::HandlerSlow) {
            sky.sleep(20, 4_000).await;
        } else {
            sky.travel().await;
        }
        transaction.life.go_on().await;
        if sky.strikes(Strike::HandlerLater) {
            let wait = sky.dice(|dice| dice.between(0, 2_000));
            return Ok(Err(retry_after(wait, "busy", "not now")));
        }
        if sky.strikes(Strike::HandlerPanics) {
            return Err(Box::new("planned"));
        }
        let is_refused = match command.is_compensation {
            true => sky.strikes(Strike::CompensationRefused),
            false => sky.strikes(Strike::HandlerRefuses),
        };
        if is_refused {
            return Ok(Err(refuse("refused", "not this one")));
        }
        let direction = if command.is_compensation { Direction::Compensation } else { Direction::Action };
        transaction.effects.push(Effect {
            saga: command.saga_id,
            step: command.step.clone(),
            direction,
            key: command.key.clone(),
        });
        let number = {
            let mut state = transaction.database.state();
            state.done += 1;
            state.done
        };
        Ok(Ok(json!({ "authId": format!("a{number}"), "price": number, "number": number, "ok": true }).to_string()))
    }
}

/// How often a participant under way says so, if it does.
pub(super) fn heartbeat(n: u64) -> Option<Duration> {
    (n == 0).then_some(Duration::from_millis(700))
}
