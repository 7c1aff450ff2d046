//! The ten ways of being stuck that `docs/runbooks/stuck.md` lists: each is seen with `amends stuck`, told as such by the
//! metrics, and cured with at most three commands.

mod support;

#[expect(dead_code, reason = "the tests of the command line need more of it")]
#[path = "cli/program.rs"]
mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amends::message::{Command, ReplyBody};
use program::{Program, Said};
use serde_json::{Value, json};
use support::eventually;
use support::http::{House, Served};
use support::scripted::{Scripted, done, refusal};

const HEAD: &str = "
defaults:
  timeout: 100ms
  retry: { maxAttempts: 1, initialInterval: 10ms, jitter: none }
  compensation: { timeout: 100ms, retry: { maxAttempts: 1, initialInterval: 10ms, jitter: none } }
";

/// After its pivot `b` has to be done.
const FORWARD: &str = "
steps:
  - { name: a, participant: svc, action: a, pivot: true, compensation: none }
  - { name: b, participant: svc, action: b, compensation: none }
";

/// `b` is refused, so that `a` has to be undone.
const BACK: &str = "
steps:
  - { name: a, participant: svc, action: a, compensation: { action: undo } }
  - { name: b, participant: svc, action: refuse, compensation: none }
";

/// What a participant says to `b`, `undo` and `c` as long as it is not mended: nothing, or that it refuses.
type Broken = Option<&'static str>;

/// One saga that is stuck, the server that tells of it, and the participant that has made it so.
struct Stuck {
    is_mended: Arc<AtomicBool>,
    id: String,
    served: Served,
    _house: House,
    _svc: Scripted,
}

fn answer(command: &Command, is_mended: bool, broken: Broken) -> Vec<ReplyBody> {
    match (command.action.as_str(), broken) {
        ("refuse", _) => vec![refusal("no")],
        ("a", _) => vec![done()],
        _ if is_mended => vec![done()],
        (_, Some(kind)) => vec![refusal(kind)],
        (_, None) => vec![],
    }
}

fn definition(name: &str, version: u32, rest: &str) -> String {
    format!("saga: {name}\nversion: {version}{HEAD}{rest}")
}

impl Stuck {
    /// A saga of these definitions, the last of which is started, is stuck for `reason`.
    async fn new(definitions: &[String], broken: Broken, direction: &str, reason: &str) -> Self {
        let house = House::new().await;
        let is_mended = Arc::new(AtomicBool::new(false));
        let mended = is_mended.clone();
        let svc = Scripted::start(&house.broker, "svc", move |command| {
            answer(command, mended.load(Ordering::SeqCst), broken)
        })
        .await;
        let mut name = String::new();
        for text in definitions {
            name =
                house.coordinator.register(text, "test").await.expect("registered").definition.reference.name.clone();
        }
        let start = json!({ "saga": name, "input": { "total": 7, "parts": 0 } });
        let id = house.post("/v1/sagas", &start).await.json()["id"].as_str().expect("an id").to_owned();
        eventually("the saga is stuck", async || {
            let saga = house.get(&format!("/v1/sagas/{id}")).await.json();
            (saga["state"] == "STUCK").then_some(())
        })
        .await;
        let sample = format!(r#"amends_sagas_stuck{{saga="{name}",direction="{direction}",reason="{reason}"}} 1"#);
        eventually(&format!("the metrics have {sample}"), async || {
            house.get("/metrics").await.text.contains(&sample).then_some(())
        })
        .await;
        let (_, served) = house.serve().await;
        let stuck = Self { is_mended, id, served, _house: house, _svc: svc };
        let said = stuck.amends(&["stuck"]).await;
        assert_eq!(said.code, 3, "{said}");
        assert!(said.stdout.contains(&stuck.id), "{said}");
        stuck
    }

    fn mend(&self) {
        self.is_mended.store(true, Ordering::SeqCst);
    }

    async fn amends(&self, arguments: &[&str]) -> Said {
        let program = Program::new(arguments).env("AMENDS_URL", &self.served.url);
        tokio::task::spawn_blocking(|| program.run()).await.expect("it runs")
    }

    /// A command that works.
    async fn does(&self, arguments: &[&str]) {
        let said = self.amends(arguments).await;
        assert_eq!(said.code, 0, "{said}");
    }

    /// An action on the saga, as its runbook has it.
    async fn act(&self, action: &str) {
        self.does(&["sagas", action, &self.id, "--reason", "ticket 123"]).await;
    }

    async fn register(&self, text: &str) {
        let program = Program::new(&["definitions", "register", "mended.yaml"]).file("mended.yaml", text);
        let program = program.env("AMENDS_URL", &self.served.url);
        let said = tokio::task::spawn_blocking(|| program.run()).await.expect("it runs");
        assert_eq!(said.code, 0, "{said}");
    }

    async fn ends(&self, state: &str) {
        let said = self.amends(&["sagas", "watch", &self.id, "--output", "json"]).await;
        assert_eq!(said.code, if state == "COMPLETED" { 0 } else { 3 }, "{said}");
        let saga: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(saga["state"], state, "{said}");
        let said = self.amends(&["stuck"]).await;
        assert_eq!(said.code, 0, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_nobody_answers_goes_on_with_retry() {
    let stuck = Stuck::new(&[definition("one", 1, FORWARD)], None, "action", "unanswered").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_done_by_hand_is_skipped() {
    let stuck = Stuck::new(&[definition("one", 1, FORWARD)], None, "action", "unanswered").await;
    stuck.act("skip").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_pivot_goes_on_with_retry() {
    let stuck = Stuck::new(&[definition("two", 1, FORWARD)], Some("out-of-stock"), "action", "refused").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_goes_on_with_a_mended_version() {
    let bad = FORWARD.replace("action: b,", "action: b, input: { share: \"${ input.total / input.parts }\" },");
    let good = FORWARD.replace("action: b,", "action: b, input: { share: \"${ input.total }\" },");
    let stuck = Stuck::new(&[definition("three", 1, &bad)], None, "action", "expression").await;
    stuck.mend();
    stuck.register(&definition("three", 2, &good)).await;
    stuck.does(&["sagas", "migrate", &stuck.id, "--to", "2", "--reason", "version 2 does not divide"]).await;
    stuck.act("retry").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_is_not_known_goes_on_once_it_is() {
    let stuck = Stuck::new(&[definition("five", 1, FORWARD)], Some("unknown-action"), "action", "unknown-action").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_behind_its_tombstone_is_skipped_after_the_pivot() {
    let stuck = Stuck::new(&[definition("six", 1, FORWARD)], Some("tombstoned"), "action", "tombstoned").await;
    stuck.act("skip").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_went_back_is_started_again_by_retry() {
    let child = "
steps:
  - { name: c, participant: svc, action: c, compensation: none }
";
    let parent = "
steps:
  - { name: a, participant: svc, action: a, pivot: true, compensation: none }
  - { name: b, saga: child }
";
    let texts = [definition("child", 1, child), definition("seven", 1, parent)];
    let stuck = Stuck::new(&texts, Some("out-of-stock"), "action", "sub-saga").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPLETED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_that_nobody_answers_goes_on_with_retry() {
    let stuck = Stuck::new(&[definition("eight", 1, BACK)], None, "compensation", "unanswered").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPENSATED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_undoing_goes_on_with_retry() {
    let texts = [definition("nine", 1, BACK)];
    let stuck = Stuck::new(&texts, Some("shipped"), "compensation", "compensation-refused").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPENSATED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_whose_input_fails_is_skipped_when_done_by_hand() {
    let undo = "action: undo, input: { share: \"${ input.total / input.parts }\" }";
    let texts = [definition("ten", 1, &BACK.replace("action: undo", undo))];
    let stuck = Stuck::new(&texts, None, "compensation", "expression").await;
    stuck.act("skip").await;
    stuck.ends("COMPENSATED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_that_is_not_known_goes_on_once_it_is() {
    let texts = [definition("four", 1, BACK)];
    let stuck = Stuck::new(&texts, Some("unknown-action"), "compensation", "unknown-action").await;
    stuck.mend();
    stuck.act("retry").await;
    stuck.ends("COMPENSATED").await;
}
