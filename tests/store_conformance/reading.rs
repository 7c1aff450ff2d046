//! What is not there, and what comes back exactly as it went in.

use amends::id::SagaId;
use amends::payload::Payload;
use amends::saga::{Outcome, Problem, Saga};
use amends::store::{Changes, OutboxFilter, Page, SagaFilter, StoreError};
use rstest::rstest;

use crate::make::{DEFINITION, audited, bare, new, saga, settled, starts};
use crate::rig::Kind::{self, Memory, Postgres, Sealed, Sqlite};
use crate::rig::on;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_absent_and_no_error(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (store, id) = (&rig.store, SagaId::fresh());
        assert!(store.saga(id).await.expect("a read").is_none());
        assert!(store.saga_by_key(DEFINITION, "k").await.expect("a read").is_none());
        assert!(store.history(id).await.expect("a read").is_empty());
        assert!(store.audit(Some(id), &Page { after: None, limit: 9 }).await.expect("a read").is_empty());
        let filter = OutboxFilter { saga: Some(id), ..OutboxFilter::default() };
        assert!(store.outbox(&filter, &Page { after: None, limit: 9 }).await.expect("a read").is_empty());
        assert!(
            store.sagas(&SagaFilter::default(), &Page { after: Some(id), limit: 9 }).await.expect("a read").is_empty()
        );
        assert!(store.pending(None, 9).await.expect("a read").is_empty());
    })
    .await;
}

/// Texts that break what pastes SQL together, or that counts bytes as characters.
const HOSTILE: [&str; 7] = [
    "'; drop table saga; --",
    "\" or \"\"=\"",
    "$1 ? :name %s {} \\",
    "",
    "Schlüssel 鍵 🔑 \u{200b}\u{202e}",
    "line\nbreak\ttab\r",
    "null",
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_is_just_text(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        for text in HOSTILE {
            let mut one = saga(Some(text));
            one.definition.name = format!("d{text}");
            one.cause = Some(Problem { detail: Some(text.to_owned()), ..Problem::new(text, text) });
            let mut start = new(one.clone());
            start.commands[0].participant = text.to_owned();
            start.commands[0].step = text.to_owned();
            let changes =
                Changes { starts: vec![start], audits: vec![audited(Some(one.id), text)], ..Changes::default() };
            rig.write(changes).await.expect("a commit");

            assert_eq!(rig.saga(one.id).await.saga, one, "{text:?}");
            assert_eq!(rig.store.saga_by_key(&one.definition.name, text).await.expect("a read"), Some(one.id));
            let filter = SagaFilter { key: Some(text.to_owned()), ..SagaFilter::default() };
            let found = rig.store.sagas(&filter, &Page { after: None, limit: 9 }).await.expect("a list");
            assert_eq!(found.len(), 1, "{text:?}");
            let filter = SagaFilter { states: vec![text.to_owned()], ..SagaFilter::default() };
            assert!(rig.store.sagas(&filter, &Page { after: None, limit: 9 }).await.expect("a list").is_empty());
            let filter = OutboxFilter { participant: Some(text.to_owned()), ..OutboxFilter::default() };
            let found = rig.store.outbox(&filter, &Page { after: None, limit: 9 }).await.expect("a list");
            assert_eq!(found.iter().map(|entry| &*entry.step).collect::<Vec<_>>(), [text]);
            let audit = rig.store.audit(Some(one.id), &Page { after: None, limit: 9 }).await.expect("audit");
            assert_eq!(audit[0].reason, text);
        }
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn payloads_come_back_to_the_letter(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let long = format!(r#"{{"long":"{}"}}"#, "ü".repeat(500_000));
        let payloads = [
            r#"{ "b" : 1,  "a":2, "a":3 }"#,
            "12345678901234567890.123456789e10",
            r#""\u0000 \u00fc \/ ü""#,
            "null",
            "[]",
            r#""text that looks like {json}""#,
            &long,
        ];
        for text in payloads {
            let one = Saga { input: Payload::trusted(text), output: Some(Payload::trusted(text)), ..saga(None) };
            let mut start = new(one.clone());
            start.commands[0].body = Payload::trusted(text);
            let changes = Changes {
                starts: vec![start],
                settled: vec![settled(&one, 1, Outcome::Success, Some(text))],
                ..Changes::default()
            };
            rig.write(changes).await.expect("a commit");

            let record = rig.saga(one.id).await;
            assert_eq!(record.saga.input.text(), text);
            assert_eq!(record.saga.output.expect("an output").text(), text);
            assert_eq!(record.commands[0].body.text(), text);
            let verified = record.commands[0].verified.clone().expect("it is settled");
            assert_eq!(verified.output.expect("an output").text(), text);
            assert_eq!(rig.load(crate::make::these([one.id])).await.sagas[0].input.text(), text);
        }
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_says_so(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        rig.store.close().await;
        let write = rig.write(starts(vec![bare(saga(None))])).await;
        assert!(matches!(write, Err(StoreError::Unavailable(_))), "{write:?}");
        let read = rig.store.saga(SagaId::fresh()).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        rig.store.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_address_that_cannot_be_understood_is_told_what_can() {
    for address in
        ["", "mysql://u:secret@h/db", "/var/lib/amends.db", "postgres", "secret", "http://x", "sqlite://", "sqlite:x"]
    {
        let Err(error) = amends::store::open(address).await else { panic!("{address} opened") };
        let StoreError::Address { problem, .. } = &error else { panic!("{address}: {error:?}") };
        assert!(problem.contains("expected"), "{address}: {problem}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
