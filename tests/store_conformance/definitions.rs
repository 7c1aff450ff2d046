//! Definitions are immutable; token keys are made once.

use amends::clock::Clock;
use amends::id::DefinitionRef;
use amends::store::{DefinitionRecord, Registration};
use rstest::rstest;

use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{on, side_by_side};

pub fn definition(name: &str, version: u32, content: u8) -> DefinitionRecord {
    DefinitionRecord {
        reference: DefinitionRef { name: name.to_owned(), version },
        hash: [content; 32],
        source: format!("saga: {name}\nversion: {version} # {content}\n"),
        registered_at: Clock::System.now(),
        registered_by: "anna".to_owned(),
        deprecated: None,
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_immutable(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let first = definition("a", 1, 1);
        let again = DefinitionRecord { registered_by: "bert".to_owned(), ..first.clone() };
        let other = definition("a", 1, 2);
        assert_eq!(rig.store.register(&first).await.expect("registration"), Registration::New);
        assert_eq!(rig.store.register(&again).await.expect("registration"), Registration::Same(first.clone()));
        assert_eq!(rig.store.register(&other).await.expect("registration"), Registration::Different(first.clone()));
        assert_eq!(rig.store.definition(&first.reference).await.expect("a read"), Some(first));
        let unknown = DefinitionRef { name: "a".to_owned(), version: 2 };
        assert_eq!(rig.store.definition(&unknown).await.expect("a read"), None);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_registrations_one_is_new(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let outcomes = side_by_side((0..10).map(|n| {
            let (rig, definition) = (rig.clone(), definition("a", 1, n % 2));
            async move { rig.store.register(&definition).await.expect("registration") }
        }))
        .await;
        let count = |is: fn(&Registration) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
        assert_eq!(count(|outcome| *outcome == Registration::New), 1);
        assert_eq!(count(|outcome| matches!(outcome, Registration::Same(_))), 4);
        assert_eq!(count(|outcome| matches!(outcome, Registration::Different(_))), 5);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn definitions_come_by_name_and_version(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        for (name, version) in [("b", 2), ("a", 10), ("b", 1), ("a", 9)] {
            rig.store.register(&definition(name, version, 1)).await.expect("registration");
        }
        let list = async |name: Option<&str>| -> Vec<(String, u32)> {
            let all = rig.store.definitions(name).await.expect("a list");
            all.into_iter().map(|record| (record.reference.name, record.reference.version)).collect()
        };
        let of = |name: &str, version| (name.to_owned(), version);
        assert_eq!(list(None).await, [of("a", 9), of("a", 10), of("b", 1), of("b", 2)]);
        assert_eq!(list(Some("b")).await, [of("b", 1), of("b", 2)]);
        assert_eq!(list(Some("c")).await, []);

        let names = ["b", "c", "a"].map(str::to_owned);
        let mut newest = rig.store.newest(&names).await.expect("a read");
        newest.sort();
        let newest: Vec<_> = newest.into_iter().map(|newest| (newest.name, newest.version)).collect();
        assert_eq!(newest, [of("a", 10), of("b", 2)]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_token_key_is_made_once_and_stays(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let keys = side_by_side((1..=10).map(|n| {
            let rig = rig.clone();
            async move { rig.store.token_keys([n; 32]).await.expect("keys") }
        }))
        .await;
        let secret = |keys: &[amends::message::TokenKey]| match keys {
            [key] => (key.id, key.secret),
            keys => panic!("{} keys", keys.len()),
        };
        let first = secret(&keys[0]);
        assert!(keys.iter().all(|keys| secret(keys) == first), "everybody has the same");
        assert_eq!(secret(&rig.store.token_keys([0; 32]).await.expect("keys")), first);
    })
    .await;
}
