//! Versions that are deprecated, and sagas that move from one to another.

use std::collections::BTreeMap;

use amends::id::{DefinitionRef, SagaId};
use amends::payload::Payload;
use amends::saga::{Outcome, Saga, StepState};
use amends::store::{Changes, DefinitionRecord, Deprecation, DeprecationChange, SagaMigration, SagaUpdate, StoreError};
use rstest::rstest;

use crate::definitions::definition;
use crate::make::{command, new, next, saga, settled, starts, these, updates, verified};
use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{Rig, on};

async fn deprecate(rig: &Rig, version: u32, is_deprecated: bool, reason: &str) {
    let change = DeprecationChange {
        reference: DefinitionRef { name: "a".to_owned(), version },
        is_deprecated,
        at: rig.now().await,
        actor: "anna".to_owned(),
        reason: reason.to_owned(),
    };
    rig.write(Changes { deprecations: vec![change], ..Changes::default() }).await.expect("a commit");
}

async fn newest(rig: &Rig) -> Option<u32> {
    rig.store.newest(&["a".to_owned()]).await.expect("a read").pop().map(|newest| newest.version)
}

async fn read(rig: &Rig, version: u32) -> DefinitionRecord {
    let reference = DefinitionRef { name: "a".to_owned(), version };
    rig.store.definition(&reference).await.expect("a read").expect("it is there")
}

fn reasons(all: &[DefinitionRecord]) -> Vec<Option<&str>> {
    all.iter().map(|record| record.deprecated.as_ref().map(|why| why.reason.as_str())).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_is_one_that_is_not_deprecated(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        for version in 1..=3 {
            rig.store.register(&definition("a", version, 1)).await.expect("registration");
        }
        rig.store.register(&definition("b", 3, 1)).await.expect("registration");
        assert_eq!(newest(&rig).await, Some(3));
        deprecate(&rig, 3, true, "it loses orders").await;
        assert_eq!(newest(&rig).await, Some(2));
        deprecate(&rig, 2, true, "as well").await;
        deprecate(&rig, 1, true, "and this").await;
        assert_eq!(newest(&rig).await, None, "nothing is left to start");
        deprecate(&rig, 2, false, "it was not that bad").await;
        assert_eq!(newest(&rig).await, Some(2));
        let all = rig.store.definitions(Some("a")).await.expect("a list");
        assert_eq!(reasons(&all), [Some("and this"), None, Some("it loses orders")]);
        let others = rig.store.definitions(Some("b")).await.expect("a list");
        assert_eq!(reasons(&others), [None], "another definition of the same version");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_deprecation_tells_who_when_and_why_and_the_last_one_counts(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let first = definition("a", 1, 1);
        rig.store.register(&first).await.expect("registration");
        assert_eq!(read(&rig, 1).await.deprecated, None);
        let before = rig.now().await;
        deprecate(&rig, 1, true, "once").await;
        deprecate(&rig, 1, true, "twice").await;
        let record = read(&rig, 1).await;
        let Some(Deprecation { at, actor, reason }) = record.deprecated.clone() else { panic!("{record:?}") };
        assert_eq!((actor.as_str(), reason.as_str()), ("anna", "twice"));
        assert!(at >= before);
        assert_eq!(DefinitionRecord { deprecated: None, ..record }, first, "the version itself is as it was");
        deprecate(&rig, 1, false, "again").await;
        assert_eq!(read(&rig, 1).await.deprecated, None);
    })
    .await;
}

/// `saga` one revision on, at version 2, its two steps the other way round.
fn turned(saga: &Saga, reads_outputs: bool) -> (SagaUpdate, SagaMigration) {
    let SagaUpdate { saga: mut moved, from_revision } = next(saga);
    moved.definition.version = 2;
    moved.reads_outputs = reads_outputs;
    moved.steps.reverse();
    let steps = vec![("step-2".to_owned(), 0), ("step-1".to_owned(), 1)];
    let migration = SagaMigration { saga: saga.id, version: 2, reads_outputs, steps };
    (SagaUpdate { saga: moved, from_revision }, migration)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_moves_takes_its_commands_and_outputs_along(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = Saga { steps: vec![verified(1), StepState::Waiting], ..saga(Some("k")) };
        let other = Saga { steps: vec![verified(1), StepState::Waiting], ..saga(None) };
        let settle = |saga| settled(saga, 1, Outcome::Success, Some("{\"n\":1}"));
        let both = Changes {
            settled: vec![settle(&one), settle(&other)],
            ..starts(vec![new(one.clone()), new(other.clone())])
        };
        rig.write(both).await.expect("a commit");
        let (update, migration) = turned(&one, true);
        let moved = update.saga.clone();
        // A command decided in the same commit under the old places.
        let decided = command(&moved, 2);
        let changes = Changes { migrations: vec![migration], commands: vec![decided], ..updates(vec![update]) };
        rig.write(changes).await.expect("a commit");

        let record = rig.saga(one.id).await;
        let outputs = BTreeMap::from([(amends::id::StepIndex(1), Payload::trusted("{\"n\":1}"))]);
        assert_eq!(record.saga, Saga { outputs: outputs.clone(), ..moved });
        let places: Vec<_> = record.commands.iter().map(|entry| (entry.step.as_str(), entry.step_index)).collect();
        assert_eq!(places, [("step-1", 1), ("step-2", 0)]);
        assert!(record.commands.iter().all(|entry| entry.definition.version == 2));
        let loaded = rig.load(these([one.id])).await;
        assert_eq!(loaded.sagas[0].outputs, outputs, "they are loaded with it from now on");

        let untouched = rig.saga(other.id).await;
        assert_eq!((untouched.saga.definition.version, untouched.commands[0].step_index), (1, 0));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_alone_moves_no_saga(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![new(one.clone())])).await.expect("a commit");
        let (update, _) = turned(&one, true);
        rig.write(updates(vec![update])).await.expect("a commit");
        let stored = rig.saga(one.id).await.saga;
        assert_eq!((stored.definition.version, stored.reads_outputs), (1, false));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_move_of_a_saga_that_has_changed_meanwhile_writes_nothing(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![new(one.clone())])).await.expect("a commit");
        let (update, migration) = turned(&one, false);
        rig.write(updates(vec![next(&one)])).await.expect("a commit");
        let late = Changes { migrations: vec![migration], ..updates(vec![update]) };
        let refused = rig.write(late).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        let missing = SagaMigration { saga: SagaId::fresh(), version: 2, reads_outputs: false, steps: Vec::new() };
        let refused = rig.write(Changes { migrations: vec![missing], ..Changes::default() }).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        assert_eq!(rig.saga(one.id).await.saga.definition.version, 1);
    })
    .await;
}
