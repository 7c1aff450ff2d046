//! A service under test: one action and its compensation that do as the command's body says.

use std::sync::Arc;
use std::time::Duration;

use amends::broker::{Published, Settlement};
use amends::id::{DefinitionRef, SagaId};
use amends::message::ReplyBody;
use amends::message::command::{Command, idempotency_key};
use amends::participant::{Participant, RunError, RunningParticipant, StepError, Work, refuse, retry_after};
use amends::payload::Payload;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Pool;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::databases::TestDatabase;
use crate::scripted::{Scripted, Shared};

pub const NAME: &str = "warehouse";

/// A command's body: what the handler does after its effect.
#[derive(Debug, Deserialize)]
pub struct Order {
    pub effect: String,
    #[serde(default)]
    pub then: Then,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    #[default]
    Succeed,
    Refuse,
    Later,
    Break,
    Panic,
    /// Succeeds once the test opens the gate.
    Wait,
    /// Sends a heartbeat, then succeeds.
    Beat,
    /// Breaks the transaction, then refuses.
    BreakAndRefuse,
    /// Panics the first time it is called.
    PanicOnce,
    /// Is chosen as the victim of a deadlock the first time it is called.
    ConflictOnce,
    /// Puts out more than a reply may hold.
    Flood,
    /// Hands its work to somebody who keeps it.
    Keep,
}

#[derive(Serialize)]
pub struct Done {
    pub effect: String,
    pub call: u64,
}

/// What handlers and the test share.
#[derive(Clone)]
pub struct Controls {
    pub gate: Arc<Semaphore>,
    pub calls: watch::Sender<u64>,
    pub inside: watch::Sender<i64>,
    pub most_inside: watch::Sender<i64>,
}

impl Controls {
    fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            calls: watch::Sender::new(0),
            inside: watch::Sender::new(0),
            most_inside: watch::Sender::new(0),
        }
    }

    /// Waits until handlers were called this often.
    pub async fn until_called(&self, times: u64) {
        let mut calls = self.calls.subscribe();
        let called = calls.wait_for(|calls| *calls >= times);
        tokio::time::timeout(Duration::from_secs(30), called).await.expect("called in time").expect("alive");
    }

    async fn carry_out<DB: TestDatabase>(self, order: Order, mut work: Work<DB>) -> Result<Done, StepError> {
        self.calls.send_modify(|calls| *calls += 1);
        let call = *self.calls.borrow();
        self.inside.send_modify(|inside| *inside += 1);
        let inside = *self.inside.borrow();
        self.most_inside.send_modify(|most| *most = inside.max(*most));
        let result = self.then(order, &mut work, call).await;
        self.inside.send_modify(|inside| *inside -= 1);
        if matches!(&result, Ok(done) if done.effect == "keep") {
            std::mem::forget(work);
        }
        result
    }

    async fn then<DB: TestDatabase>(&self, order: Order, work: &mut Work<DB>, call: u64) -> Result<Done, StepError> {
        DB::effect(work.tx(), &order.effect).await?;
        match order.then {
            Then::Succeed | Then::Keep => {}
            Then::Refuse => return Err(refuse("out-of-stock", "there is nothing left")),
            Then::Later => return Err(retry_after(Duration::from_millis(1_500), "carrier-busy", "no truck")),
            Then::Break => DB::fail(work.tx()).await?,
            Then::Panic => panic!("the handler's bug"),
            Then::PanicOnce if call == 1 => panic!("the handler's bug"),
            Then::ConflictOnce if call == 1 => DB::conflict(work.tx()).await?,
            Then::PanicOnce | Then::ConflictOnce => {}
            Then::Wait => self.gate.acquire().await?.forget(),
            Then::Beat => assert!(work.heartbeat().await),
            Then::BreakAndRefuse => {
                let _ = DB::fail(work.tx()).await;
                return Err(refuse("out-of-stock", "there is nothing left"));
            }
            Then::Flood => return Ok(Done { effect: "x".repeat(2 * 1024 * 1024), call }),
        }
        Ok(Done { effect: order.effect, call })
    }
}

pub struct Rig<DB: TestDatabase> {
    pub pool: Pool<DB>,
    pub broker: Arc<Scripted>,
    pub controls: Controls,
    pub participant: RunningParticipant<DB>,
    pub stop: CancellationToken,
    pub running: JoinHandle<Result<(), RunError>>,
    _folder: Option<tempfile::TempDir>,
}

impl<DB: TestDatabase> Rig<DB> {
    pub async fn start() -> Self {
        Self::start_with(|participant| participant).await
    }

    pub async fn start_with(adjust: impl FnOnce(Participant<DB>) -> Participant<DB>) -> Self {
        let (pool, folder) = DB::fresh().await;
        Self::start_on(pool, folder, adjust)
    }

    /// The same service once more, after a crash: another process on the same database.
    pub fn restarted(self) -> Self {
        Self::start_on(self.pool, self._folder, |participant| participant)
    }

    fn start_on(
        pool: Pool<DB>,
        folder: Option<tempfile::TempDir>,
        adjust: impl FnOnce(Participant<DB>) -> Participant<DB>,
    ) -> Self {
        let (broker, controls, stop) = (Scripted::new(), Controls::new(), CancellationToken::new());
        let (pick, unpick) = (controls.clone(), controls.clone());
        let participant = Participant::named(NAME)
            .action("pick", move |order, work| pick.clone().carry_out(order, work))
            .action("unpick", move |order, work| unpick.clone().carry_out(order, work));
        let participant = adjust(participant)
            .build(pool.clone(), Arc::new(Shared(Arc::clone(&broker))))
            .expect("a valid participant");
        let running = tokio::spawn({
            let (participant, stop) = (participant.clone(), stop.clone());
            async move { participant.run(stop).await }
        });
        Self { pool, broker, controls, participant, stop, running, _folder: folder }
    }

    /// Delivers a command and waits for its reply and acknowledgement.
    pub async fn ask(&self, command: &Command) -> ReplyBody {
        let tag = self.broker.deliver(command.encode());
        let reply = self.broker.reply(&command.token).await;
        assert_eq!(self.broker.settlement(tag).await, Settlement::Ack);
        reply
    }

    pub async fn effects(&self) -> Vec<String> {
        DB::effects(&self.pool).await
    }

    pub async fn inbox(&self, command: &Command) -> Option<(String, Option<String>)> {
        DB::inbox(&self.pool, &command.key).await
    }

    /// Waits until a command's transaction is committed.
    pub async fn until_recorded(&self, command: &Command) {
        let recorded = async {
            while self.inbox(command).await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), recorded).await.expect("recorded in time");
    }

    pub fn calls(&self) -> u64 {
        *self.controls.calls.borrow()
    }
}

/// An action of a saga of its own.
pub fn pick(then: &str) -> Command {
    let saga = SagaId::fresh();
    let key = idempotency_key(saga, "pick", "action", 1);
    Command {
        message_id: format!("message of {key}"),
        token: format!("token 1 of {key}"),
        reply_to: "amends.replies".to_owned(),
        participant: NAME.to_owned(),
        action: "pick".to_owned(),
        saga_id: saga,
        definition: DefinitionRef { name: "place-order".to_owned(), version: 1 },
        step: "pick".to_owned(),
        is_compensation: false,
        attempt: 1,
        key,
        compensates: None,
        deadline: amends::clock::Clock::System.now(),
        traceparent: None,
        tracestate: None,
        body: Payload::from(json!({ "effect": "picked", "then": then })),
        sent_at: amends::clock::Clock::System.now(),
    }
}

/// The compensation of `action`.
pub fn unpick(action: &Command, then: &str) -> Command {
    let key = idempotency_key(action.saga_id, "pick", "compensation", 1);
    Command {
        message_id: format!("message of {key}"),
        token: format!("token 1 of {key}"),
        action: "unpick".to_owned(),
        is_compensation: true,
        compensates: Some(action.key.clone()),
        key,
        body: Payload::from(json!({ "effect": "unpicked", "then": then })),
        ..action.clone()
    }
}

/// The next attempt of a command: same key, another token.
pub fn again(command: &Command) -> Command {
    let attempt = command.attempt + 1;
    Command { attempt, token: format!("token {attempt} of {}", command.key), ..command.clone() }
}

/// The word of a reply: `success`, `failure <type>`, `retry <type>`.
pub fn word(reply: &ReplyBody) -> String {
    match reply {
        ReplyBody::Success(_) => "success".to_owned(),
        ReplyBody::Failure(problem) => format!("failure {}", problem.kind),
        ReplyBody::Retry(problem, _) => format!("retry {}", problem.kind),
        ReplyBody::InProgress => "in-progress".to_owned(),
    }
}

/// A publish whose outcome nobody knows.
pub fn unknown() -> Published {
    Published::Unknown("the connection was lost".to_owned())
}
