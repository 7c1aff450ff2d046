//! What each participant is sent at once, and what callers may start: so that one that has stopped, or a flood of one
//! definition, costs the others nothing.
//!
//! A gate holds commands back while too many wait in the participant's queue already (the window), while the participant
//! has done nothing but fail for a while (the circuit), or while an operator has paused it (the [pauses](Pauses)). A command that is held back stays PENDING in the store,
//! and its attempt is not spent. Here are only numbers, and the ids of those that are next ([`lanes`]); the
//! [keeper](keeper) sees to it that they go out.

mod circuit;
mod gate;
mod hearing;
mod intake;
mod keeper;
mod lanes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::clock::{Timestamp, after};
use crate::coordinator::metrics::Metrics;
use crate::coordinator::pauses::Pauses;
use crate::coordinator::plan::Noted;
use crate::definition::COORDINATOR;
use crate::id::CommandId;
use crate::saga::{Direction, HELD_AT_MOST, Note};
use crate::store::pauses::ParticipantPause;
use circuit::{Circuit, Turned};
use gate::Gate;
use hearing::Hearing;
pub(super) use intake::{Intake, Turn};
pub(super) use keeper::Keeper;
use lanes::LaneName;

/// Messages that may wait in a participant's queue, unless options say otherwise.
pub(super) const WINDOW: u32 = 10_000;

/// How much each participant is sent, and how definitions share that.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many messages may wait in a participant's queue; further commands wait in the store. 0: there is no bound.
    pub window: u32,
    /// The same for participants that are to have more or less, by name.
    pub windows: BTreeMap<String, u32>,
    /// How many turns a definition has at a participant that holds commands back, by name, while others have one.
    pub weights: BTreeMap<String, u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: WINDOW, windows: BTreeMap::new(), weights: BTreeMap::new() }
    }
}

impl Limits {
    fn window(&self, participant: &str) -> u32 {
        self.windows.get(participant).copied().unwrap_or(self.window)
    }

    fn weight(&self, definition: &str) -> u32 {
        self.weights.get(definition).copied().unwrap_or(1)
    }
}

/// A command that is about to be sent.
pub(super) struct Asked<'a> {
    pub(super) participant: &'a str,
    pub(super) action: &'a str,
    pub(super) definition: &'a str,
    pub(super) direction: Direction,
    pub(super) id: CommandId,
}

/// How a participant stands, as far as this coordinator can tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Since when its circuit is open: it has done nothing but fail, and is only sent probes.
    pub open_since: Option<Timestamp>,
    /// Whether its queue is so long that commands are held back.
    pub is_full: bool,
    /// How many commands are held back, as far as this coordinator knows them by id.
    pub held: usize,
    /// Whether there are more of them.
    pub holds_more: bool,
    /// The part of its last outcomes that were technical failures: time-outs and pleas for another attempt.
    pub failure_rate: f64,
    /// How many messages may wait in its queue; 0 is no bound.
    pub window: u32,
    /// Whether operators have paused it, or actions of it.
    pub pauses: Vec<ParticipantPause>,
}

/// The gates of all participants. Clones are the same.
#[derive(Clone)]
pub(super) struct Gates(Arc<Inner>);

struct Inner {
    limits: Limits,
    gates: Mutex<BTreeMap<String, Gate>>,
    pauses: Pauses,
    intake: Intake,
    /// There may be room.
    stirred: Notify,
    hearing: Mutex<Hearing>,
    metrics: Metrics,
}

impl Gates {
    pub(super) fn new(limits: Limits, metrics: Metrics) -> Self {
        let (gates, pauses, stirred) = (Mutex::default(), Pauses::default(), Notify::new());
        let intake = Intake::new(metrics.starts_waiting());
        let hearing = Mutex::default();
        Self(Arc::new(Inner { limits, gates, pauses, intake, stirred, hearing, metrics }))
    }

    /// What operators have paused.
    pub(super) fn pauses(&self) -> &Pauses {
        &self.0.pauses
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// Does something with a participant's gate, which is made if there is none.
    fn with<T>(&self, participant: &str, work: impl FnOnce(&mut Gate) -> T) -> Option<T> {
        let mut gates = self.0.gates.lock().ok()?;
        Some(match gates.get_mut(participant) {
            Some(gate) => work(gate),
            None => {
                self.0.metrics.circuit(participant, false);
                work(gates.entry(participant.to_owned()).or_default())
            }
        })
    }

    /// Whether a command goes out now; else it is held back, and this is when it is tried again at the latest.
    pub(super) fn admit(&self, asked: &Asked<'_>, now: Timestamp) -> Option<Timestamp> {
        if asked.participant == COORDINATOR {
            return None;
        }
        if self.0.pauses.is_paused(asked.participant, asked.action) {
            self.0.metrics.held(asked.participant);
            // Nobody has it in mind: whoever resumes has it read from the store.
            return Some(after(now, HELD_AT_MOST));
        }
        let window = self.0.limits.window(asked.participant);
        let (until, is_unseen) =
            self.with(asked.participant, |gate| (gate.admit(asked, window, now), gate.is_unseen()))?;
        if is_unseen {
            self.0.stirred.notify_one();
        }
        if until.is_some() {
            self.0.metrics.held(asked.participant);
        }
        until
    }

    /// A predecessor may have held commands back for these: the store is asked.
    pub(super) fn expect<'a>(&self, participants: impl IntoIterator<Item = &'a str>) {
        for participant in participants.into_iter().filter(|participant| *participant != COORDINATOR) {
            self.with(participant, |gate| gate.has_more = true);
        }
        self.0.stirred.notify_one();
    }

    /// A command was held back by somebody: this coordinator may have forgotten it, or never known.
    pub(super) fn found(&self, asked: &Asked<'_>) {
        if asked.participant == COORDINATOR || self.0.pauses.is_paused(asked.participant, asked.action) {
            return;
        }
        let is_news = self.with(asked.participant, |gate| {
            let is_news = !gate.lanes.has(asked.id);
            gate.has_more |= is_news;
            is_news
        });
        if is_news == Some(true) {
            self.0.stirred.notify_one();
        }
    }

    /// What the broker said of the messages for each participant: of how many, and how many are in its queue.
    pub(super) fn published(&self, counts: &BTreeMap<&str, (u32, u32)>) {
        let Ok(mut gates) = self.0.gates.lock() else { return };
        for (participant, (all, in_queue)) in counts {
            if let Some(gate) = gates.get_mut(*participant) {
                gate.published(*all, *in_queue);
            }
        }
    }

    /// A reply has arrived here.
    pub(super) fn hears(&self) {
        if let Ok(mut hearing) = self.0.hearing.lock() {
            hearing.hears();
        }
    }

    /// Another coordinator has heard a reply to what this one has sent. When it is known by that that all go there, circuits
    /// are closed.
    pub(super) fn overheard(&self) {
        if !self.0.hearing.lock().is_ok_and(|mut hearing| hearing.overheard()) {
            return;
        }
        let Ok(mut gates) = self.0.gates.lock() else { return };
        for (participant, gate) in gates.iter_mut() {
            gate.circuit = Circuit::default();
            self.0.metrics.circuit(participant, false);
        }
        self.0.stirred.notify_one();
    }

    fn is_deaf(&self) -> bool {
        self.0.hearing.lock().is_ok_and(|hearing| hearing.is_deaf())
    }

    /// What participants have made of their commands.
    pub(super) fn observe(&self, notes: &[Noted]) {
        for noted in notes {
            let (step, is_answer) = match &noted.note {
                Note::StepVerified(step) | Note::StepFailed(step, _) | Note::StepCompensated(step) => (*step, true),
                Note::TimedOut(step, _) | Note::RetryAsked(step, _) => (*step, false),
                _ => continue,
            };
            self.outcome(&noted.definition.step(step).participant, is_answer, noted.at);
        }
    }

    fn outcome(&self, participant: &str, is_answer: bool, at: Timestamp) {
        if !is_answer && self.is_deaf() {
            return;
        }
        let window = self.0.limits.window(participant);
        let Ok(mut gates) = self.0.gates.lock() else { return };
        // Of one that was never sent anything there is nothing to tell.
        let Some(gate) = gates.get_mut(participant) else { return };
        let turned = gate.circuit.outcome(is_answer, at);
        if gate.answered(window) || turned.is_some() {
            self.0.stirred.notify_one();
        }
        if let Some(turned) = turned {
            let is_open = turned == Turned::Opened;
            self.0.metrics.circuit(participant, is_open);
            match is_open {
                true => tracing::warn!(
                    participant,
                    failures = gate.circuit.failures(),
                    "it only fails: its circuit is open, and only probes are sent"
                ),
                false => tracing::info!(participant, "it answers again: its circuit is closed"),
            }
        }
    }

    pub(super) fn standing(&self, participant: &str) -> Standing {
        let window = self.0.limits.window(participant);
        let pauses = self.0.pauses.of(participant);
        let gates = self.0.gates.lock();
        let Some(gate) = gates.as_ref().ok().and_then(|gates| gates.get(participant)) else {
            return Standing { window, pauses, ..Standing::default() };
        };
        Standing {
            open_since: gate.circuit.open_since(),
            is_full: !gate.is_unseen() && gate.room(window) == 0,
            held: gate.lanes.len(),
            holds_more: gate.has_more,
            failure_rate: gate.circuit.rate(),
            window,
            pauses,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::gate::SCOUT;
    use super::*;
    use crate::id::{SagaId, Seq};

    fn gates(window: u32) -> Gates {
        let windows = BTreeMap::from([("small".to_owned(), 2), ("free".to_owned(), 0)]);
        let gates = Gates::new(Limits { window, windows, weights: BTreeMap::new() }, Metrics::default());
        for name in ["slow", "other", "small", "free"] {
            gates.with(name, |gate| gate.seen(0, 0)).expect("a gate");
        }
        gates
    }

    fn id(n: u128) -> CommandId {
        CommandId { saga: SagaId(uuid::Uuid::from_u128(n)), seq: Seq(1) }
    }

    fn ask(gates: &Gates, participant: &str, n: u128) -> Option<Timestamp> {
        let asked = Asked { participant, action: "pick", definition: "order", direction: Direction::Action, id: id(n) };
        gates.admit(&asked, Timestamp::default())
    }

    fn admitted(gates: &Gates, participant: &str, numbers: std::ops::Range<u128>) -> usize {
        numbers.filter(|n| ask(gates, participant, *n).is_none()).count()
    }

    fn look(gates: &Gates, participant: &str, messages: u32) {
        gates.with(participant, |gate| gate.seen(messages, gate.sent())).expect("a gate");
    }

    #[test]
    fn a_window_closes_at_its_size_and_what_it_holds_goes_out_in_order() {
        let gates = gates(10);
        assert_eq!(admitted(&gates, "slow", 0..50), 10);
        assert_eq!(admitted(&gates, "other", 100..105), 5, "a neighbour's window is its own");
        assert_eq!(admitted(&gates, "small", 200..205), 2, "windows can be given one by one");
        assert_eq!(admitted(&gates, "free", 300..20_300), 20_000, "0 is no window");
        look(&gates, "slow", 0);
        assert_eq!(gates.grant(100), [], "none of them is in the queue yet, and none was done");
        gates.published(&BTreeMap::from([("slow", (10, 10))]));
        assert_eq!(gates.standing("slow").held, 40);
        assert!(gates.standing("slow").is_full);
        look(&gates, "slow", 6);
        assert_eq!(admitted(&gates, "slow", 50..60), 0, "those that came before are first");
        let granted: Vec<CommandId> = gates.grant(100).into_iter().map(|granted| granted.id).collect();
        assert_eq!(granted, [10, 11, 12, 13].map(id));
        assert_eq!(admitted(&gates, "slow", 10..14), 4, "their place is kept");
        assert_eq!(gates.grant(100), []);
    }

    #[test]
    fn a_turn_that_was_not_used_is_given_back() {
        let gates = gates(1);
        assert_eq!(admitted(&gates, "slow", 0..3), 1);
        gates.published(&BTreeMap::from([("slow", (1, 1))]));
        look(&gates, "slow", 0);
        let granted = gates.grant(10);
        assert_eq!(granted.len(), 1);
        assert_eq!(gates.grant(10), [], "there is no more room");
        gates.turn_over(&granted[0], true);
        assert_eq!(gates.grant(10), granted, "it is first again");
        gates.turn_over(&granted[0], false);
        assert_eq!(gates.grant(10).first().map(|granted| granted.id), Some(id(2)));
    }

    #[test]
    fn until_its_queue_was_looked_at_a_participant_is_sent_a_quarter() {
        let gates = gates(100);
        assert_eq!(admitted(&gates, "unseen", 0..100), 25);
        look(&gates, "unseen", 99);
        gates.published(&BTreeMap::from([("unseen", (25, 25))]));
        assert_eq!(gates.grant(100), []);
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_those_held_back_is_due_soon_whatever_becomes_of_this_coordinator() {
        let gates = gates(1);
        let now = Timestamp::default();
        let until: Vec<Timestamp> = (0..4).filter_map(|n| ask(&gates, "slow", n)).collect();
        assert_eq!(until, [SCOUT, HELD_AT_MOST, HELD_AT_MOST].map(|wait| after(now, wait)));
        assert_eq!(ask(&gates, "slow", 1), Some(after(now, SCOUT)), "again, after a commit that came to nothing");
        tokio::time::advance(SCOUT).await;
        assert_eq!(ask(&gates, "slow", 1), Some(after(now, SCOUT)), "the same one, or another");
        assert_eq!(gates.standing("slow").held, 3, "it is known once");
        assert_eq!(gates.scouts(), []);

        // When its turn comes another takes its place before it goes.
        gates.published(&BTreeMap::from([("slow", (1, 1))]));
        look(&gates, "slow", 0);
        assert_eq!(gates.grant(1).first().map(|granted| granted.id), Some(id(1)));
        let next = gates.scouts();
        assert!(next == [id(2)] || next == [id(3)], "{next:?}");
        assert_eq!(ask(&gates, "slow", next[0].saga.0.as_u128()), Some(after(now, SCOUT)));
        assert_eq!(gates.scouts(), []);
    }

    #[test]
    fn what_is_paused_is_held_back_whatever_room_there_is_and_nothing_else_is() {
        let gates = gates(10);
        assert_eq!(admitted(&gates, "slow", 0..12), 10);
        gates.published(&BTreeMap::from([("slow", (10, 10))]));
        look(&gates, "slow", 0);
        let pause = |action: Option<&str>| ParticipantPause {
            participant: "slow".to_owned(),
            action: action.map(str::to_owned),
            since: Timestamp::default(),
            by: "ann".to_owned(),
            reason: "stocktaking".to_owned(),
        };
        gates.pauses().replace(vec![pause(Some("pack"))]);
        assert_eq!(gates.grant(1).len(), 1, "that is another action");
        gates.pauses().replace(vec![pause(Some("pick"))]);
        assert_eq!(admitted(&gates, "slow", 10..11), 0, "although it was its turn");
        gates.pauses().replace(vec![pause(None)]);
        assert_eq!((gates.grant(100), admitted(&gates, "slow", 20..30)), (Vec::new(), 0));
        assert_eq!(admitted(&gates, "other", 100..105), 5);
        assert_eq!(gates.standing("slow").pauses, [pause(None)]);
        gates.pauses().replace(Vec::new());
        assert_eq!(gates.grant(100).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_that_nothing_is_heard_of_takes_no_place_for_good() {
        let gates = gates(1);
        assert_eq!(admitted(&gates, "slow", 0..2), 1);
        for _ in 0..2 {
            assert_eq!(gates.grant(10), []);
            tokio::time::advance(Duration::from_secs(5)).await;
            gates.turn();
        }
        assert_eq!(gates.grant(10).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_holds_everything_back_but_a_probe_now_and_then() {
        let gates = gates(1_000);
        assert_eq!(admitted(&gates, "slow", 0..30), 30);
        let fail = |times| (0..times).for_each(|_| gates.outcome("slow", false, Timestamp::default()));
        fail(circuit::FAILURES);
        tokio::time::advance(circuit::FAILING).await;
        fail(1);
        assert!(gates.standing("slow").open_since.is_some());
        assert_eq!(admitted(&gates, "slow", 30..40), 0);
        assert_eq!(gates.grant(100), []);
        tokio::time::advance(circuit::PROBE).await;
        assert_eq!(gates.grant(100).len(), 1, "a probe");
        assert_eq!(admitted(&gates, "slow", 30..31), 1);
        assert_eq!(gates.grant(100), [], "and no more");
        gates.outcome("slow", true, Timestamp::default());
        assert_eq!(gates.standing("slow").open_since, None);
        assert_eq!(gates.grant(100).len(), 9, "it answers again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_no_replies_judges_nobody() {
        let gates = gates(1_000);
        assert_eq!(admitted(&gates, "slow", 0..30), 30);
        let fail = |times| (0..times).for_each(|_| gates.outcome("slow", false, Timestamp::default()));
        let is_open = || gates.standing("slow").open_since.is_some();
        let fail_for_long = async || {
            fail(circuit::FAILURES);
            tokio::time::advance(circuit::FAILING).await;
            fail(1);
        };
        gates.hears();
        gates.overheard();
        fail_for_long().await;
        assert!(is_open(), "some replies come here, some there");
        gates.overheard();
        assert!(!is_open(), "none has come here for long");
        fail_for_long().await;
        assert!(!is_open());
        gates.hears();
        fail_for_long().await;
        assert!(is_open(), "they come here again");
    }
}
