//! The ten ways of being stuck that `docs/runbooks/stuck.md` lists: each is seen with `amends stuck`, told as such by the
//! metrics, and cured with at most three commands.

mod support;

#[expect(dead_code, reason = "the tests of the command line need more of it")]
#[path = "cli/program.rs"]
mod program;

use std::cell::Cell;

use program::{Program, Said};
use serde_json::Value;
use support::eventually;
use support::http::Served;
use support::ways::{Cure, Stuck, Way, way};

/// The server of one stuck saga, and how many commands have been given to cure it.
struct Case {
    stuck: Stuck,
    served: Served,
    id: String,
    commands: Cell<usize>,
}

impl Case {
    /// A saga is stuck in this way, and everybody says so.
    async fn new(way: &Way) -> Self {
        let stuck = Stuck::in_ways(std::slice::from_ref(way)).await;
        let Way { saga, direction, reason, .. } = way;
        let sample = format!(r#"amends_sagas_stuck{{saga="{saga}",direction="{direction}",reason="{reason}"}} 1"#);
        eventually(&format!("the metrics have {sample}"), async || {
            stuck.house.get("/metrics").await.text.contains(&sample).then_some(())
        })
        .await;
        let (_, served) = stuck.house.serve().await;
        let id = stuck.ids[saga].clone();
        let case = Self { stuck, served, id, commands: Cell::new(0) };
        let said = case.amends(&["stuck"]).await;
        assert_eq!(said.code, 3, "{said}");
        assert!(said.stdout.contains(&case.id), "{said}");
        case
    }

    async fn amends(&self, arguments: &[&str]) -> Said {
        let program = Program::new(arguments).env("AMENDS_URL", &self.served.url);
        tokio::task::spawn_blocking(|| program.run()).await.expect("it runs")
    }

    /// A command that is a part of the cure, and works.
    async fn does(&self, arguments: &[&str]) {
        let said = self.amends(arguments).await;
        assert_eq!(said.code, 0, "{said}");
        self.commands.set(self.commands.get() + 1);
    }

    async fn register(&self, text: &str) {
        let program = Program::new(&["definitions", "register", "mended.yaml"]).file("mended.yaml", text);
        let program = program.env("AMENDS_URL", &self.served.url);
        let said = tokio::task::spawn_blocking(|| program.run()).await.expect("it runs");
        assert_eq!(said.code, 0, "{said}");
        self.commands.set(self.commands.get() + 1);
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

/// The way of this name is cured as its runbook has it.
async fn is_cured(name: &str) {
    let way = way(name);
    let case = Case::new(&way).await;
    let id = case.id.as_str();
    match &way.cure {
        Cure::Retry => {
            case.stuck.mend(way.saga);
            case.does(&["sagas", "retry", id, "--reason", "ticket 123"]).await;
        }
        Cure::Skip => case.does(&["sagas", "skip", id, "--reason", "ticket 123"]).await,
        Cure::Migrate(mended) => {
            case.stuck.mend(way.saga);
            case.register(mended).await;
            case.does(&["sagas", "migrate", id, "--to", "2", "--reason", "version 2 does not divide"]).await;
            case.does(&["sagas", "retry", id, "--reason", "ticket 123"]).await;
        }
    }
    case.ends(way.ends).await;
    assert!(case.commands.get() <= 3, "{} commands", case.commands.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_nobody_answers_goes_on_with_retry() {
    is_cured("nobody answers a step").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_done_by_hand_is_skipped() {
    is_cured("nobody answers a step that was done by hand").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_the_pivot_goes_on_with_retry() {
    is_cured("a refusal after the pivot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_goes_on_with_a_mended_version() {
    is_cured("an expression fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_is_not_known_goes_on_once_it_is() {
    is_cured("an action is not known").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_behind_its_tombstone_is_skipped_after_the_pivot() {
    is_cured("a step is behind its tombstone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_went_back_is_started_again_by_retry() {
    is_cured("a sub-saga went back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_that_nobody_answers_goes_on_with_retry() {
    is_cured("nobody answers an undoing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_undoing_goes_on_with_retry() {
    is_cured("an undoing is refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_whose_input_fails_is_skipped_when_done_by_hand() {
    is_cured("the input of an undoing fails").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undoing_that_is_not_known_goes_on_once_it_is() {
    is_cured("an undoing is not known").await;
}
