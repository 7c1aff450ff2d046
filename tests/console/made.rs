//! Sagas made by the real state machine without a broker: thousands in a moment, stuck in ten ways.

use std::sync::Arc;
use std::time::Duration;

use amends::clock::{Clock, Timestamp};
use amends::definition::{Definition, read};
use amends::id::{CommandId, SagaId};
use amends::payload::Payload;
use amends::saga::{Direction, Effect, Event, EventKind, Phase, Problem, ReplyOutcome, Saga, transition};
use amends::store::webhooks::NewDelivery;
use amends::store::{Changes, HistoryRecord, NewCommand, NewSaga, SettledCommand, Store, Wants};
use serde_json::{Value, json};
use uuid::Uuid;

/// Before the pivot and after it there are steps that can get stuck. `card` is marked sensitive.
pub const ORDER: &str = r#"
saga: order
version: 1
owner: fulfilment
runbook: https://runbooks.example/order
key: ${ input.order }
input:
  schema:
    type: object
    required: [order]
    properties: { order: { type: string }, total: {}, card: { type: string, sensitive: true }, note: {} }
defaults:
  timeout: 20m
  retry: { maxAttempts: 3, initialInterval: 10ms, maxInterval: 20ms, jitter: none }
  compensation: { timeout: 20s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: create, participant: orders, action: create, compensation: { action: cancel } }
  - { name: pay, participant: payments, action: pay, compensation: { action: refund } }
  - { name: pick, participant: warehouse, action: pick, compensation: { action: unpick } }
  - { name: confirm, participant: orders, action: confirm, pivot: true, compensation: none }
  - { name: ship, participant: carrier, action: ship, compensation: none }
  - { name: notify, participant: mail, action: notify, compensation: none }
"#;

/// What a participant does with a command.
#[derive(Clone, Debug)]
pub enum Does {
    Yes,
    No(&'static str),
    /// Nothing, until the attempt times out.
    Silent,
    /// The saga is left as it is from here on.
    Leave,
}

/// A step that goes wrong: its name, its way, and what its participant does.
pub type Fault = (&'static str, Direction, Does);

/// The ten ways of being stuck, each with what goes wrong.
pub fn ways() -> [(&'static str, Vec<Fault>); 10] {
    use Direction::{Action, Compensation};
    let broken = |step, does| vec![("confirm", Action, Does::No("order-closed")), (step, Compensation, does)];
    [
        ("the order cannot be cancelled", broken("create", Does::No("order-locked"))),
        ("the payment cannot be refunded", broken("pay", Does::No("refund-window-closed"))),
        ("the parcel cannot be unpicked", broken("pick", Does::No("already-loaded"))),
        ("nobody answers the cancellation", broken("create", Does::Silent)),
        ("nobody answers the refund", broken("pay", Does::Silent)),
        ("nobody answers the unpicking", broken("pick", Does::Silent)),
        ("the pivot's outcome is not known", vec![("confirm", Action, Does::Silent)]),
        ("the carrier refuses", vec![("ship", Action, Does::No("address-unknown"))]),
        ("the carrier does not answer", vec![("ship", Action, Does::Silent)]),
        ("the mail is refused", vec![("notify", Action, Does::No("mailbox-full"))]),
    ]
}

pub fn definition(source: &str) -> Arc<Definition> {
    let checked = read(source);
    checked.definition.unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
}

/// A saga from its start at `at` until it rests, or is left.
pub fn play(definition: &Arc<Definition>, input: Value, at: Timestamp, faults: &[Fault]) -> NewSaga {
    let payload = Payload::from(input);
    let input_hash = payload.canonical_hash();
    let key = definition.key_of(&payload).expect("a key");
    let fresh = Saga::new(SagaId::fresh(), definition, key, payload, at);
    let mut made = NewSaga { saga: fresh, input_hash, commands: Vec::new(), settled: Vec::new(), history: Vec::new() };
    apply(definition, &mut made, at, EventKind::Started);
    let mut now = at;
    for _ in 0..200 {
        let saga = &made.saga;
        if saga.state.is_terminal() || saga.state.stuck().is_some() {
            break;
        }
        let next = definition.indices().find_map(|index| {
            let (direction, command) = saga.steps[index.at()].in_flight()?;
            Some((definition.step(index).name.clone(), direction, command.clone()))
        });
        let Some((step, direction, command)) = next else { break };
        let does = faults.iter().find(|(name, way, _)| *name == step && *way == direction);
        now += Duration::from_millis(40 + u64::from(command.seq.0) * 17);
        let outcome = match does.map_or(Does::Yes, |(.., does)| does.clone()) {
            Does::Leave => break,
            Does::Silent => {
                // What the broker has not confirmed would be published again for ever.
                if matches!(command.phase, Phase::Sending(_)) {
                    let kind = EventKind::Published { seq: command.seq, attempt: command.attempt };
                    apply(definition, &mut made, now, kind);
                    continue;
                }
                now = now.max(saga.due().expect("something is due"));
                apply(definition, &mut made, now, EventKind::Due);
                continue;
            }
            Does::Yes => ReplyOutcome::Success { output: json!({ "reference": format!("{step}-1") }).into() },
            Does::No(kind) => ReplyOutcome::Failure { problem: Problem::new(kind, format!("{step} was refused")) },
        };
        apply(definition, &mut made, now, EventKind::Replied { seq: command.seq, attempt: command.attempt, outcome });
    }
    made
}

fn apply(definition: &Definition, made: &mut NewSaga, now: Timestamp, kind: EventKind) {
    let (saga, effects) = transition(definition, &made.saga, &Event { now, kind: kind.clone() }).expect("it is legal");
    let revision = saga.revision;
    let is_told = matches!(kind, EventKind::Started | EventKind::Replied { outcome: ReplyOutcome::Success { .. }, .. });
    if !is_told {
        made.history.push(HistoryRecord { saga: saga.id, revision, at: now, event: kind });
    }
    for effect in effects {
        match effect {
            Effect::Decide { seq, step, direction, generation, compensates, body } => {
                let of = definition.step(step);
                let action = match (direction, of.compensation.action()) {
                    (Direction::Compensation, Some(compensation)) => compensation.action.clone(),
                    _ => of.action.clone(),
                };
                made.commands.push(NewCommand {
                    id: CommandId { saga: saga.id, seq },
                    step: of.name.clone(),
                    step_index: step.0,
                    direction,
                    generation,
                    compensates,
                    participant: of.participant.clone(),
                    action,
                    body,
                    revision,
                    at: now,
                });
            }
            Effect::Settle(settled) => {
                made.settled.retain(|known| known.settled.seq != settled.seq);
                made.settled.push(SettledCommand { saga: saga.id, settled, revision, at: now });
            }
            _ => {}
        }
    }
    made.saga = saga;
}

pub async fn write(store: &dyn Store, sagas: Vec<NewSaga>) {
    for chunk in sagas.chunks(500) {
        let changes = Changes { starts: chunk.to_vec(), ..Changes::default() };
        store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
    }
}

/// The sagas of a house that tests go by.
#[derive(Clone, Debug, Default)]
pub struct Filled {
    /// Stuck ones by way, in the order of [`ways`].
    pub stuck: [Vec<SagaId>; 10],
    /// Under way, their pivot not sent yet.
    pub before_pivot: Vec<SagaId>,
    /// Under way, past their pivot.
    pub after_pivot: Vec<SagaId>,
    /// What a webhook has not taken: one message that is parked, and two that are still tried.
    pub untold: Vec<Uuid>,
}

impl Filled {
    /// One stuck saga per way.
    pub fn samples(&self) -> Vec<(&'static str, SagaId)> {
        ways().iter().zip(&self.stuck).map(|((name, _), ids)| (*name, ids[0])).collect()
    }
}

/// `count` sagas of which 3 in a hundred are stuck, in ten ways, and some are under way.
pub async fn fill(store: &dyn Store, definition: &Arc<Definition>, count: usize) -> Filled {
    let now = Clock::System.now();
    let ways = ways();
    let (mut sagas, mut filled) = (Vec::with_capacity(count), Filled::default());
    for at in 0..count {
        let age = Duration::from_secs(3_500 - (at * 3_400 / count) as u64);
        let start = now - chrono::TimeDelta::from_std(age).expect("a short time");
        let input = json!({
            "order": format!("o-{at:05}"), "total": 1_200 + at, "card": format!("4242-{at:05}"),
            "note": { "lines": [{ "sku": "lp-1", "quantity": 1 + at % 3 }], "gift": at % 5 == 0 },
        });
        let stuck = (at % 100 < 3).then(|| (at / 100 * 3 + at % 100) % ways.len());
        let faults: Vec<Fault> = match (stuck, at % 100) {
            (Some(way), _) => ways[way].1.clone(),
            (None, 10..14) => vec![("pick", Direction::Action, Does::No("out-of-stock"))],
            (None, 20) => vec![("pick", Direction::Action, Does::Leave)],
            (None, 21) => vec![("ship", Direction::Action, Does::Leave)],
            _ => Vec::new(),
        };
        // What is silent takes its time-outs; and what is under way must not be late already.
        let start = match stuck {
            Some(_) => now - chrono::TimeDelta::hours(3) - chrono::TimeDelta::from_std(age).expect("short"),
            None if (20..22).contains(&(at % 100)) => now - chrono::TimeDelta::seconds(30),
            None => start,
        };
        let made = play(definition, input, start, &faults);
        match (stuck, at % 100) {
            (Some(way), _) => {
                assert!(made.saga.state.stuck().is_some(), "{}: {:?}", ways[way].0, made.saga.state);
                filled.stuck[way].push(made.saga.id);
            }
            (None, 20) => filled.before_pivot.push(made.saga.id),
            (None, 21) => filled.after_pivot.push(made.saga.id),
            _ => {}
        }
        sagas.push(made);
    }
    write(store, sagas).await;
    filled
}

/// What a webhook is to be told of these sagas. The first message is parked, for a reason that would like to be markup.
pub async fn untold(store: &dyn Store, sagas: &[SagaId]) -> Vec<Uuid> {
    let of = |&saga: &SagaId| NewDelivery {
        id: NewDelivery::id_of("pager", saga, 1, "stuck"),
        webhook: "pager".to_owned(),
        event: "stuck".to_owned(),
        saga,
        body: "{}".to_owned(),
        at: Clock::System.now(),
    };
    let webhooks: Vec<NewDelivery> = sagas.iter().map(of).collect();
    let mut ids: Vec<Uuid> = webhooks.iter().map(|told| told.id).collect();
    let changes = Changes { webhooks, ..Changes::default() };
    store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
    let webhooks = store.webhooks().expect("it keeps them");
    let lease = Duration::from_secs(3_600);
    let taken = webhooks.claim(&["pager".to_owned()], lease, 1).await.expect("a claim").remove(0);
    let problem = "it answered 500: <img src=x onerror=window.pwned=1>";
    webhooks.failed(taken.id, taken.attempts, problem, None).await.expect("parked");
    ids.sort_by_key(|id| *id != taken.id);
    ids
}
