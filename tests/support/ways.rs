//! The ten ways of being stuck that `docs/runbooks/stuck.md` lists, and what cures each: for the tests of the command line
//! and of the console.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amends::message::{Command, ReplyBody};
use serde_json::json;

use super::eventually;
use super::http::House;
use super::scripted::{Scripted, done, refusal};

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

/// What cures a saga.
#[derive(Clone, Debug)]
pub enum Cure {
    /// A retry, once whoever was broken is mended.
    Retry,
    /// The step was seen to by hand, and is passed over.
    Skip,
    /// This mended version of its definition, and a retry.
    Migrate(String),
}

/// One way of being stuck.
#[derive(Clone, Debug)]
pub struct Way {
    /// What has happened.
    pub name: &'static str,
    /// The definition that is started; the last of `definitions`.
    pub saga: &'static str,
    pub definitions: Vec<String>,
    /// What the participant says to `b`, `undo` and `c` as long as it is not mended: nothing, or that it refuses.
    pub broken: Option<&'static str>,
    /// As the metrics tell it.
    pub direction: &'static str,
    pub reason: &'static str,
    pub cure: Cure,
    /// The state that it ends in.
    pub ends: &'static str,
}

fn definition(name: &str, version: u32, rest: &str) -> String {
    format!("saga: {name}\nversion: {version}{HEAD}{rest}")
}

/// All of them; two are cured in another way each.
pub fn ways() -> Vec<Way> {
    let forward = |name, saga, broken, reason, cure| Way {
        name,
        saga,
        definitions: vec![definition(saga, 1, FORWARD)],
        broken,
        direction: "action",
        reason,
        cure,
        ends: "COMPLETED",
    };
    let back = |name, saga, broken, reason| Way {
        definitions: vec![definition(saga, 1, BACK)],
        direction: "compensation",
        ends: "COMPENSATED",
        ..forward(name, saga, broken, reason, Cure::Retry)
    };
    let divides = FORWARD.replace("action: b,", "action: b, input: { share: \"${ input.total / input.parts }\" },");
    let mended = FORWARD.replace("action: b,", "action: b, input: { share: \"${ input.total }\" },");
    let child = "\nsteps:\n  - { name: c, participant: svc, action: c, compensation: none }\n";
    let parent = "\nsteps:\n  - { name: a, participant: svc, action: a, pivot: true, compensation: none }\n  - { name: b, saga: child }\n";
    let undo = BACK.replace("action: undo", "action: undo, input: { share: \"${ input.total / input.parts }\" }");
    vec![
        forward("nobody answers a step", "one", None, "unanswered", Cure::Retry),
        forward("nobody answers a step that was done by hand", "one-by-hand", None, "unanswered", Cure::Skip),
        forward("a refusal after the pivot", "two", Some("out-of-stock"), "refused", Cure::Retry),
        Way {
            definitions: vec![definition("three", 1, &divides)],
            ..forward(
                "an expression fails",
                "three",
                None,
                "expression",
                Cure::Migrate(definition("three", 2, &mended)),
            )
        },
        back("an undoing is not known", "four", Some("unknown-action"), "unknown-action"),
        forward("an action is not known", "five", Some("unknown-action"), "unknown-action", Cure::Retry),
        forward("a step is behind its tombstone", "six", Some("tombstoned"), "tombstoned", Cure::Skip),
        Way {
            definitions: vec![definition("child", 1, child), definition("seven", 1, parent)],
            ..forward("a sub-saga went back", "seven", Some("out-of-stock"), "sub-saga", Cure::Retry)
        },
        back("nobody answers an undoing", "eight", None, "unanswered"),
        back("an undoing is refused", "nine", Some("shipped"), "compensation-refused"),
        Way {
            definitions: vec![definition("ten", 1, &undo)],
            cure: Cure::Skip,
            ..back("the input of an undoing fails", "ten", None, "expression")
        },
    ]
}

/// The way of this name.
pub fn way(name: &str) -> Way {
    ways().into_iter().find(|way| way.name == name).unwrap_or_else(|| panic!("there is no way `{name}`"))
}

/// Sagas that are stuck, one for each of some ways, and the participant that has made them so.
pub struct Stuck {
    pub house: House,
    /// Their ids, by the names of their definitions.
    pub ids: BTreeMap<&'static str, String>,
    broken: Arc<Mutex<BTreeMap<String, Option<&'static str>>>>,
    _svc: Scripted,
}

fn answer(command: &Command, broken: Option<Option<&'static str>>) -> Vec<ReplyBody> {
    match (command.action.as_str(), broken) {
        ("refuse", _) => vec![refusal("no")],
        ("a", _) | (_, None) => vec![done()],
        (_, Some(Some(kind))) => vec![refusal(kind)],
        (_, Some(None)) => vec![],
    }
}

impl Stuck {
    /// One saga is stuck for each of these.
    pub async fn in_ways(ways: &[Way]) -> Self {
        let house = House::new().await;
        let mut kinds = BTreeMap::new();
        for way in ways {
            kinds.insert(way.saga.to_owned(), way.broken);
            if way.definitions.len() > 1 {
                kinds.insert("child".to_owned(), way.broken);
            }
        }
        let broken = Arc::new(Mutex::new(kinds));
        let asked = broken.clone();
        let svc = Scripted::start(&house.broker, "svc", move |command| {
            let broken = asked.lock().expect("no panic while locked").get(&command.definition.name).copied();
            answer(command, broken)
        })
        .await;
        let mut ids = BTreeMap::new();
        for way in ways {
            for text in &way.definitions {
                house.coordinator.register(text, "test").await.expect("registered");
            }
            let start = json!({ "saga": way.saga, "input": { "total": 7, "parts": 0 } });
            let id = house.post("/v1/sagas", &start).await.json()["id"].as_str().expect("an id").to_owned();
            ids.insert(way.saga, id);
        }
        let stuck = Self { house, ids, broken, _svc: svc };
        for way in ways {
            let id = &stuck.ids[way.saga];
            eventually("the saga is stuck", async || {
                let saga = stuck.house.get(&format!("/v1/sagas/{id}")).await.json();
                (saga["state"] == "STUCK").then_some(())
            })
            .await;
        }
        stuck
    }

    /// From here on the participant does what sagas of this definition ask of it.
    pub fn mend(&self, saga: &str) {
        let mut broken = self.broken.lock().expect("no panic while locked");
        broken.remove(saga);
        if saga == "seven" {
            broken.remove("child");
        }
    }
}
