//! What becomes of one command: the contract's rules on inbox, effect and reply, for every database and handler.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{INVALID_INPUT, Refusal, StepError, TOMBSTONED, UNKNOWN_ACTION, retry_reply, technical};
use super::inbox::{Entry, Inbox, Recorded, Row};
use super::ledger::Ledger;
use super::work::{Pulse, Work};
use crate::failpoint::{self, Point};
use crate::message::reply::{MAX_REPLY_BYTES, ReplyProblem};
use crate::message::{Command, ReplyBody};
use crate::payload::Payload;

/// A handler without its types: input and output as JSON.
pub(crate) type Handler<DB> = Arc<dyn Fn(Payload, Work<DB>) -> Handled + Send + Sync>;

/// The future of a handler: its output as JSON text.
pub(crate) type Handled = BoxFuture<'static, Result<String, StepError>>;

/// Takes the types off a handler.
pub(crate) fn erase<DB, I, O, F, Fut>(handler: F) -> Handler<DB>
where
    DB: Inbox,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(I, Work<DB>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, StepError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |body, work| {
        let handler = Arc::clone(&handler);
        async move {
            let input: I = serde_json::from_str(body.text()).map_err(|error| {
                Refusal::new(INVALID_INPUT, "the input is not what this action takes").detail(error.to_string())
            })?;
            let output = serde_json::to_string(&handler(input, work).await?)?;
            // A handler with nothing to say says `()`.
            Ok(if output == "null" { "{}".to_owned() } else { output })
        }
        .boxed()
    })
}

/// What became of a command.
#[derive(Debug, PartialEq)]
pub(crate) struct Performed {
    /// What to reply.
    pub reply: ReplyBody,
    /// How it came about.
    pub how: How,
}

/// How a reply came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The handler ran and its effect is durable.
    Done,
    /// It was refused, and the refusal is durable.
    Refused,
    /// It was answered from the inbox.
    Replayed,
    /// Its action never ran and now never will.
    Tombstone,
    /// Nothing is recorded: it is to be sent again.
    Retry,
    /// As `Retry`, because the handler panicked.
    Panicked,
}

/// One transaction, from the inbox row to the commit.
///
/// # Errors
/// Whatever the database says outside the handler, COMMIT included, after which nobody knows whether the command took
/// effect. Performing it again tells: the inbox answers if it did.
pub(crate) async fn perform<L: Ledger>(
    ledger: &L,
    command: &Arc<Command>,
    handler: Option<&L::Handler>,
    pulse: &Pulse,
) -> Result<Performed, sqlx::Error> {
    let mut transaction = ledger.begin().await?;
    if !L::claim(&mut transaction, &Entry::own(command)).await? {
        return replay::<L>(transaction, command).await;
    }
    if let Some(action_key) = &command.compensates
        && nothing_to_undo::<L>(&mut transaction, command, action_key).await?
    {
        let reply = Recorded::Success("{}".to_owned());
        return record::<L>(transaction, command, reply, How::Tombstone).await;
    }
    let Some(handler) = handler else {
        let refusal =
            Refusal::new(UNKNOWN_ACTION, format!("{} has no action `{}`", command.participant, command.action));
        return record::<L>(transaction, command, recorded(refusal), How::Refused).await;
    };
    let (answer, transaction) = handle::<L>(transaction, command, handler, pulse).await;
    match (answer, transaction) {
        (Ok(output), Some(transaction)) => {
            record::<L>(transaction, command, Recorded::Success(output), How::Done).await
        }
        (Ok(_), None) => Ok(retry("the handler kept its work beyond its end", How::Retry)),
        (Err(answer), transaction) => {
            if let Some(transaction) = transaction {
                L::rollback(transaction).await?;
            }
            match answer {
                Answer::Refused(refusal) => refuse(ledger, command, refusal).await,
                Answer::Retry(performed) => Ok(performed),
                Answer::Conflict(error) => Err(error),
            }
        }
    }
}

/// A handler's answer that is no output.
enum Answer {
    Refused(Refusal),
    Retry(Performed),
    /// The database chose this transaction to give way to another: doing it again at once is what it asks for.
    Conflict(sqlx::Error),
}

/// The reply to a handler that could not be carried out, for a reason outside it.
pub(crate) fn unavailable(error: &sqlx::Error) -> Performed {
    let problem = technical("the participant's database failed", Some(error));
    Performed { reply: ReplyBody::Retry(problem, None), how: How::Retry }
}

/// Runs the handler, and takes the transaction back from it; `None` when it has not given it back.
async fn handle<L: Ledger>(
    transaction: L::Transaction,
    command: &Arc<Command>,
    handler: &L::Handler,
    pulse: &Pulse,
) -> (Result<String, Answer>, Option<L::Transaction>) {
    let (result, transaction) = L::call(handler, transaction, command, pulse).await;
    let answer = match result {
        Ok(Ok(output)) if output.len() > MAX_REPLY_BYTES => {
            let title = format!("the output has {} bytes, the limit is {MAX_REPLY_BYTES}", output.len());
            Err(Answer::Retry(retry(&title, How::Retry)))
        }
        Ok(Ok(output)) => Ok(output),
        Ok(Err(StepError::Refused(refusal))) => Err(Answer::Refused(refusal)),
        Ok(Err(StepError::RetryLater(later))) => {
            let (problem, after) = retry_reply(later);
            Err(Answer::Retry(Performed { reply: ReplyBody::Retry(problem, after), how: How::Retry }))
        }
        Ok(Err(StepError::Technical(error))) => Err(match error.downcast::<sqlx::Error>() {
            Ok(error) if is_conflict(&error) => Answer::Conflict(*error),
            Ok(error) => failed(command, &*error),
            Err(error) => failed(command, &*error),
        }),
        Err(panic) => {
            let said = panic_message(&*panic);
            tracing::error!(key = command.key, said, "handler panicked, to be tried again");
            Err(Answer::Retry(retry(&format!("the handler panicked: {said}"), How::Panicked)))
        }
    };
    (answer, transaction)
}

/// The answer to an error that is nobody's decision.
fn failed(command: &Command, error: &(dyn std::error::Error + 'static)) -> Answer {
    tracing::warn!(key = command.key, %error, "handler failed, to be tried again");
    let problem = technical("the handler failed", Some(error));
    Answer::Retry(Performed { reply: ReplyBody::Retry(problem, None), how: How::Retry })
}

/// Whether this is PostgreSQL's serialization failure or deadlock.
fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// Waits for an action under way, then tells whether there is anything to undo. If the action never ran, its key is
/// taken by a tombstone from here on.
async fn nothing_to_undo<L: Ledger>(
    transaction: &mut L::Transaction,
    command: &Command,
    action_key: &str,
) -> Result<bool, sqlx::Error> {
    if L::claim(transaction, &Entry::tombstone(command, action_key)).await? {
        return Ok(true);
    }
    let row = L::read(transaction, action_key).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(!matches!(row, Row::Done(Recorded::Success(_))))
}

/// Answers a duplicate from the inbox.
async fn replay<L: Ledger>(mut transaction: L::Transaction, command: &Command) -> Result<Performed, sqlx::Error> {
    // Gone again only if it was purged this instant.
    let row = L::read(&mut transaction, &command.key).await?.ok_or(sqlx::Error::RowNotFound)?;
    L::rollback(transaction).await?;
    let reply = match row {
        Row::Done(recorded) => reply(&recorded)?,
        Row::Tombstone => {
            let refusal = Refusal::new(TOMBSTONED, "this action was compensated before it came");
            ReplyBody::Failure(refusal.into())
        }
    };
    Ok(Performed { reply, how: How::Replayed })
}

/// Records a refusal after the handler's transaction was rolled back: a refusal has no effect, whatever the handler
/// had written by then, and whatever state its transaction was in. A duplicate or a compensation that got in between
/// is answered for.
async fn refuse<L: Ledger>(ledger: &L, command: &Command, refusal: Refusal) -> Result<Performed, sqlx::Error> {
    let mut transaction = ledger.begin().await?;
    if !L::claim(&mut transaction, &Entry::own(command)).await? {
        return replay::<L>(transaction, command).await;
    }
    record::<L>(transaction, command, recorded(refusal), How::Refused).await
}

/// Records the reply beside the effect and commits both.
async fn record<L: Ledger>(
    mut transaction: L::Transaction,
    command: &Command,
    recorded: Recorded,
    how: How,
) -> Result<Performed, sqlx::Error> {
    L::record(&mut transaction, &command.key, &recorded).await?;
    failpoint::reached(Point::ParticipantBeforeCommit);
    L::commit(transaction).await?;
    failpoint::reached(Point::ParticipantAfterCommit);
    Ok(Performed { reply: reply(&recorded)?, how })
}

fn recorded(refusal: Refusal) -> Recorded {
    let problem = ReplyProblem::from(refusal);
    Recorded::Failure(serde_json::to_string(&problem).unwrap_or_else(|_| "{}".to_owned()))
}

fn reply(recorded: &Recorded) -> Result<ReplyBody, sqlx::Error> {
    Ok(match recorded {
        Recorded::Success(body) => ReplyBody::Success(Payload::trusted(body.as_str())),
        Recorded::Failure(body) => {
            ReplyBody::Failure(serde_json::from_str(body).map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
        }
    })
}

fn retry(title: &str, how: How) -> Performed {
    Performed { reply: ReplyBody::Retry(technical(title, None), None), how }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
