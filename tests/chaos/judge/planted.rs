//! The judge judged: an honest run is found innocent, and evidence that a bug would have left is found guilty under the
//! right names and no others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::broker::Broker;
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorOptions, Operate, OperatorAction};
use amends::id::SagaId;
use amends::message::reply::ReplyProblem;
use amends::message::{Command, ReplyBody, TokenKey, TokenKeys};
use amends::payload::Payload;
use amends::saga::{Direction, SagaState, StepState};
use amends::store::{OutboxEntry, Store};
use serde_json::{Value, json};

use super::{Answer, Answered, Effect, Evidence, InboxRow, Kept, Sighting, Stored, Tap, Tapped, evidence, judge};
use crate::support::eventually;
use crate::support::rig::start;
use crate::support::scripted::Scripted;

const SHOP: &str = r#"
saga: shop
version: 1
key: ${ input.id }
defaults: { timeout: 300ms, retry: { maxAttempts: 1 }, compensation: { retry: { maxAttempts: 5 } } }
steps:
  - { name: reserve, participant: alpha, action: reserve, compensation: { action: free } }
  - { name: charge, participant: beta, action: charge, compensation: { action: refund } }
  - { name: pick, participant: alpha, action: pick, compensation: { action: unpick } }
  - { name: confirm, participant: beta, action: confirm, pivot: true, compensation: none }
  - { name: ship, participant: alpha, action: ship }
"#;

/// The tables of all participants.
#[derive(Default)]
struct Books {
    inbox: BTreeMap<String, (InboxRow, ReplyBody)>,
    effects: Vec<Effect>,
}

impl Books {
    /// A participant as the contract wants it, but for the saga that is to lose a command.
    fn take(&mut self, command: &Command) -> Vec<ReplyBody> {
        if let Some((_, reply)) = self.inbox.get(&command.key) {
            return vec![reply.clone()];
        }
        let plan = command.body.value()["plan"].as_str().unwrap_or_default().to_owned();
        match (&*plan, &*command.step, command.is_compensation) {
            ("lost", "pick", false) => return Vec::new(),
            ("refused", "pick", false) => {
                let problem = ReplyProblem { kind: "sold-out".to_owned(), title: "no".to_owned(), detail: None };
                return vec![self.record(&command.key, Kept::Failure, ReplyBody::Failure(problem))];
            }
            _ => {}
        }
        let done = || ReplyBody::Success(Payload::from(json!({ "by": command.participant })));
        if let Some(action) = &command.compensates
            && !self.inbox.contains_key(action)
        {
            let problem = ReplyProblem { kind: "tombstoned".to_owned(), title: "no".to_owned(), detail: None };
            self.record(action, Kept::Tombstone, ReplyBody::Failure(problem));
            return vec![self.record(&command.key, Kept::Success, done())];
        }
        self.effects.push(Effect {
            participant: command.participant.clone(),
            saga: command.saga_id,
            step: command.step.clone(),
            direction: if command.is_compensation { Direction::Compensation } else { Direction::Action },
            part: String::new(),
        });
        vec![self.record(&command.key, Kept::Success, done())]
    }

    fn record(&mut self, key: &str, kept: Kept, reply: ReplyBody) -> ReplyBody {
        let row = InboxRow { key: key.to_owned(), kept, at: Clock::System.now() };
        self.inbox.insert(key.to_owned(), (row, reply.clone()));
        reply
    }
}

/// The evidence of an honest run: one saga that completes, one that is refused, one whose command is lost. The first was
/// paused and resumed.
async fn honest() -> Evidence {
    let store: Arc<dyn Store> = amends::store::open("memory:").await.expect("a store");
    let broker: Arc<dyn Broker> = amends::broker::open("in-process").await.expect("a broker");
    let coordinator = Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default());
    let coordinator = coordinator.await.expect("it launches");
    coordinator.register(SHOP, "test").await.expect("registered");
    let tap = Tap::on(&broker).await;
    let books = Arc::new(Mutex::new(Books::default()));

    let mut starts = Vec::new();
    let mut ids = Vec::new();
    for plan in ["whole", "refused", "lost"] {
        let input = json!({ "id": plan, "plan": plan });
        let id = start(&coordinator, "shop", input.clone()).await;
        starts.push(answered(plan, input, Answer::Saga(id)));
        ids.push(id);
    }
    for action in [OperatorAction::Pause, OperatorAction::Resume] {
        let (actor, reason) = ("anna".to_owned(), "to see".to_owned());
        let operate = Operate { id: ids[0], action, actor, reason, expected_revision: None };
        coordinator.operate(operate).await.expect("it is allowed");
    }
    // Only now is there anybody to answer, so that the pause comes before the end.
    let mut participants = Vec::new();
    for name in ["alpha", "beta"] {
        let books = books.clone();
        let take = move |command: &Command| books.lock().expect("no panic while locked").take(command);
        participants.push(Scripted::start(&broker, name, take).await);
    }
    let seen = eventually("every saga ends", async || {
        let seen = evidence::look(&*store, None).await?;
        seen.iter()
            .all(|sighting| sighting.state.starts_with("COMP") && sighting.state != "COMPENSATING")
            .then_some(seen)
    })
    .await;
    tap.catch_up().await;
    let (inbox, effects) = {
        let books = books.lock().expect("no panic while locked");
        (books.inbox.values().map(|(row, _)| row.clone()).collect(), books.effects.clone())
    };
    let evidence = Evidence {
        definitions: evidence::definitions(&*store).await,
        starts,
        sagas: evidence::sagas(&*store).await,
        sightings: seen,
        inbox,
        effects,
        tap: tap.heard().await.clone(),
        may_be_unheard: 0,
        keys: TokenKeys::new(store.token_keys([0; 32]).await.expect("keys")).expect("a key"),
        quiet_since: Clock::System.now(),
        patience: Duration::from_secs(60),
        set_back: Duration::ZERO,
    };
    coordinator.stop().await;
    evidence
}

fn answered(key: &str, input: Value, answer: Answer) -> Answered {
    Answered { definition: "shop".to_owned(), key: Some(key.to_owned()), input: input.into(), answer }
}

/// A bug, what it leaves behind, and the guarantees that it breaks.
struct Planted {
    name: &'static str,
    breaks: &'static [u8],
    leaves: fn(&mut Evidence),
}

fn saga<'e>(evidence: &'e mut Evidence, plan: &str) -> &'e mut Stored {
    let is_it = |stored: &&mut Stored| stored.saga.key.as_deref() == Some(plan);
    evidence.sagas.values_mut().find(is_it).expect("the saga")
}

fn id(evidence: &Evidence, plan: &str) -> SagaId {
    let is_it = |stored: &&Stored| stored.saga.key.as_deref() == Some(plan);
    evidence.sagas.values().find(is_it).expect("the saga").saga.id
}

fn entry<'s>(stored: &'s mut Stored, step: &str, direction: Direction) -> &'s mut OutboxEntry {
    let is_it = |entry: &&mut OutboxEntry| entry.step == step && entry.direction == direction;
    stored.commands.iter_mut().find(is_it).expect("the command")
}

fn effect(evidence: &Evidence, plan: &str, step: &str, direction: Direction) -> usize {
    let id = id(evidence, plan);
    let is_it = |effect: &Effect| effect.saga == id && effect.step == step && effect.direction == direction;
    evidence.effects.iter().position(is_it).expect("the effect")
}

/// Where the tap has the first command, and the first reply to it, of a step.
fn tapped(evidence: &Evidence, plan: &str, step: &str, is_compensation: bool) -> (usize, usize) {
    let saga = id(evidence, plan);
    let sent = |tapped: &Tapped| match tapped {
        Tapped::Command(command) => {
            command.saga_id == saga && command.step == step && command.is_compensation == is_compensation
        }
        _ => false,
    };
    let at = evidence.tap.iter().position(sent).expect("the command was heard");
    let Tapped::Command(command) = &evidence.tap[at] else { unreachable!() };
    let token = command.token.clone();
    let replied = |tapped: &Tapped| matches!(tapped, Tapped::Reply(reply) if reply.token == token);
    (at, evidence.tap.iter().position(replied).expect("the reply was heard"))
}

const ACTION: Direction = Direction::Action;
const UNDO: Direction = Direction::Compensation;

const BUGS: &[Planted] = &[
    Planted {
        name: "a start is acknowledged before its commit",
        breaks: &[1],
        leaves: |evidence| {
            let id = id(evidence, "whole");
            evidence.sagas.remove(&id);
        },
    },
    Planted {
        name: "the key is looked up, not kept unique",
        breaks: &[2],
        leaves: |evidence| saga(evidence, "refused").saga.key = Some("whole".to_owned()),
    },
    Planted {
        name: "another input under the same key is taken for the same",
        breaks: &[2],
        leaves: |evidence| {
            let id = id(evidence, "whole");
            evidence.starts.push(answered("whole", json!({ "id": "whole", "plan": "other" }), Answer::Saga(id)));
        },
    },
    Planted {
        name: "a repeated start is refused",
        breaks: &[2],
        leaves: |evidence| {
            let input = json!({ "id": "whole", "plan": "whole" });
            evidence.starts.push(answered("whole", input, Answer::KeyConflict));
        },
    },
    Planted {
        name: "history is written in a transaction of its own",
        breaks: &[3],
        leaves: |evidence| {
            let history = &mut saga(evidence, "lost").history;
            history.pop().expect("it has some");
        },
    },
    Planted {
        name: "no version check: a stale write wins",
        breaks: &[3],
        leaves: |evidence| saga(evidence, "whole").saga.steps[4] = StepState::Waiting,
    },
    Planted {
        name: "a terminal saga is overwritten",
        breaks: &[4],
        leaves: |evidence| {
            let mut again = evidence.sightings[0].clone();
            again.state = "RUNNING";
            again.revision -= 1;
            evidence.sightings.push(again);
        },
    },
    Planted {
        name: "something is decided after the end",
        breaks: &[4],
        leaves: |evidence| {
            let stored = saga(evidence, "whole");
            let ended = stored.saga.ended_at.expect("it has ended");
            entry(stored, "ship", ACTION).decided_at = ended + Duration::from_secs(1);
        },
    },
    Planted {
        name: "a completed saga is undone by a second coordinator",
        breaks: &[5],
        leaves: |evidence| {
            let mut undone = evidence.effects[effect(evidence, "whole", "reserve", ACTION)].clone();
            undone.direction = UNDO;
            evidence.effects.push(undone);
        },
    },
    Planted {
        name: "two ends are written",
        breaks: &[4, 5],
        leaves: |evidence| {
            let id = id(evidence, "whole");
            let seen = evidence.sightings.iter().find(|sighting| sighting.saga == id).expect("seen");
            evidence.sightings.push(Sighting { state: "COMPENSATED", ..seen.clone() });
        },
    },
    Planted {
        name: "no inbox: a duplicate is done again",
        breaks: &[6],
        leaves: |evidence| {
            let again = evidence.effects[effect(evidence, "whole", "charge", ACTION)].clone();
            evidence.effects.push(again);
        },
    },
    Planted {
        name: "the key changes with every attempt: a compensation is done again",
        breaks: &[6],
        leaves: |evidence| {
            let again = evidence.effects[effect(evidence, "refused", "charge", UNDO)].clone();
            evidence.effects.push(again);
        },
    },
    Planted {
        name: "no tombstone: a late action is done",
        breaks: &[7, 8],
        leaves: |evidence| {
            let mut late = evidence.effects[effect(evidence, "lost", "reserve", ACTION)].clone();
            late.step = "pick".to_owned();
            evidence.effects.push(late);
        },
    },
    Planted {
        name: "a compensation does not wait for its action",
        breaks: &[7],
        leaves: |evidence| {
            let at = effect(evidence, "refused", "charge", ACTION);
            let action = evidence.effects.remove(at);
            evidence.effects.push(action);
        },
    },
    Planted {
        name: "a participant says that it undid what it did not undo",
        breaks: &[8],
        leaves: |evidence| {
            let at = effect(evidence, "refused", "reserve", UNDO);
            evidence.effects.remove(at);
        },
    },
    Planted {
        name: "unknown is taken for failed",
        breaks: &[8],
        leaves: |evidence| {
            // It was done all the same, and nothing undid it.
            let of = format!("{}/pick/action/1", id(evidence, "lost"));
            let row = evidence.inbox.iter_mut().find(|row| row.key == of).expect("the tombstone");
            row.kept = Kept::Success;
            let mut done = evidence.effects[effect(evidence, "lost", "reserve", ACTION)].clone();
            done.step = "pick".to_owned();
            evidence.effects.push(done);
        },
    },
    Planted {
        name: "a step that never was is undone",
        breaks: &[8],
        leaves: |evidence| {
            let at = effect(evidence, "refused", "reserve", ACTION);
            evidence.effects.remove(at);
        },
    },
    Planted {
        name: "all compensations are decided at once",
        breaks: &[9],
        leaves: |evidence| {
            let stored = saga(evidence, "refused");
            let first = entry(stored, "charge", UNDO).decided_revision;
            entry(stored, "reserve", UNDO).decided_revision = first;
        },
    },
    Planted {
        name: "compensations are sent in forward order",
        breaks: &[9],
        leaves: |evidence| {
            let (late, _) = tapped(evidence, "refused", "reserve", true);
            let command = evidence.tap.remove(late);
            let (early, _) = tapped(evidence, "refused", "charge", true);
            evidence.tap.insert(early, command);
        },
    },
    Planted {
        name: "the pivot is ignored",
        breaks: &[10],
        leaves: |evidence| {
            let (at, _) = tapped(evidence, "whole", "charge", false);
            let Tapped::Command(command) = &evidence.tap[at] else { unreachable!() };
            let undo = Command { is_compensation: true, ..(**command).clone() };
            evidence.tap.push(Tapped::Command(Box::new(undo)));
        },
    },
    Planted {
        name: "a saga ends before its commands do",
        breaks: &[11],
        leaves: |evidence| entry(saga(evidence, "lost"), "pick", ACTION).verified = None,
    },
    Planted {
        name: "VERIFIED early: the participant has nothing",
        breaks: &[12],
        leaves: |evidence| {
            let of = format!("{}/charge/action/1", id(evidence, "whole"));
            evidence.inbox.retain(|row| row.key != of);
        },
    },
    Planted {
        name: "VERIFIED early: the participant comes later",
        breaks: &[12],
        leaves: |evidence| {
            let of = format!("{}/charge/action/1", id(evidence, "whole"));
            let row = evidence.inbox.iter_mut().find(|row| row.key == of).expect("the row");
            row.at += Duration::from_secs(60);
        },
    },
    Planted {
        name: "the token is ignored",
        breaks: &[13],
        leaves: |evidence| {
            let (_, at) = tapped(evidence, "whole", "charge", false);
            let stored = saga(evidence, "whole");
            let command = entry(stored, "charge", ACTION).id;
            let strangers = TokenKeys::new(vec![TokenKey { id: 1, secret: [7; 32] }]).expect("a key");
            let Tapped::Reply(reply) = &mut evidence.tap[at] else { unreachable!() };
            reply.token = strangers.sign(command, 1);
        },
    },
    Planted {
        name: "a forged reply's output is taken over",
        breaks: &[13],
        leaves: |evidence| {
            let (_, at) = tapped(evidence, "whole", "charge", false);
            let Tapped::Reply(reply) = &mut evidence.tap[at] else { unreachable!() };
            reply.body = ReplyBody::Success(Payload::from(json!({ "by": "somebody else" })));
        },
    },
    Planted {
        name: "the newest definition is taken for each command",
        breaks: &[14],
        leaves: |evidence| {
            let (at, _) = tapped(evidence, "whole", "ship", false);
            let Tapped::Command(command) = &mut evidence.tap[at] else { unreachable!() };
            command.definition.version = 2;
        },
    },
    Planted {
        name: "a running saga is moved without a word",
        breaks: &[14],
        leaves: |evidence| evidence.sightings[0].version = 2,
    },
    Planted {
        name: "an operator's action is not audited",
        breaks: &[15],
        leaves: |evidence| drop(saga(evidence, "whole").audits.pop()),
    },
    Planted {
        name: "the audit row is written later",
        breaks: &[15],
        leaves: |evidence| saga(evidence, "whole").audits[0].at += Duration::from_secs(1),
    },
    Planted {
        name: "an operator need not say why",
        breaks: &[15],
        leaves: |evidence| saga(evidence, "whole").audits[0].reason.clear(),
    },
    Planted {
        name: "a saga ends only after a day",
        breaks: &[16],
        leaves: |evidence| evidence.quiet_since -= chrono::TimeDelta::days(1),
    },
    Planted {
        name: "all steps have ended, the saga still runs",
        breaks: &[3, 4, 16],
        leaves: |evidence| {
            let saga = &mut saga(evidence, "whole").saga;
            (saga.state, saga.ended_at) = (SagaState::Running, None);
        },
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_run_is_found_innocent_of_everything() {
    let verdict = judge(&honest().await);
    verdict.is_innocent("an honest run");
    for guarantee in super::DECIDED {
        assert!(verdict.weighed(guarantee) > 0, "nothing was weighed for {guarantee}:\n{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_bug_is_caught_under_its_name() {
    let honest = honest().await;
    println!("{:>4}  {:<12} planted bug", "", "caught as");
    for (at, planted) in BUGS.iter().enumerate() {
        let mut evidence = honest.clone();
        (planted.leaves)(&mut evidence);
        let verdict = judge(&evidence);
        let found: Vec<u8> = verdict.broken().into_iter().collect();
        println!("{:>4}  {:<12} {}", at + 1, format!("{found:?}"), planted.name);
        assert_eq!(found, planted.breaks, "{}\n{verdict}", planted.name);
    }
    let numbers = |breaks: &[u8]| breaks.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let planted: Vec<(&str, String)> = BUGS.iter().map(|bug| (bug.name, numbers(bug.breaks))).collect();
    let told = crate::support::planted_bugs::told("judge");
    let told: Vec<(&str, String)> = told.into_iter().map(|(name, cell)| (name, cell.to_owned())).collect();
    assert_eq!(told, planted, "docs/planted-bugs.md has what is planted here");
    let broken: std::collections::BTreeSet<u8> = BUGS.iter().flat_map(|planted| planted.breaks).copied().collect();
    assert_eq!(broken, super::DECIDED.into(), "there is a bug for every guarantee");
}
