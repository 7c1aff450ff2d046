//! What holds of a store whose payloads are encrypted, besides what holds of every store.

use std::sync::Arc;

use amends::id::{DefinitionRef, SagaId, Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{EventKind, Operation, Outcome, Problem, ReplyOutcome, Saga};
use amends::store::data_keys::{DataKeyStore, Purpose};
use amends::store::overview::FieldIs;
use amends::store::{AuditRecord, Changes, HistoryRecord, Page, SagaFilter, Started, Store, StoreError, Wants, open};
use rstest::rstest;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::make::{
    audited, bare, command, completed, due_at, later, new, next, saga, settled, starts, stuck, these, told, updates,
};
use crate::rig::Kind::{self, Postgres, Sqlite};
use crate::rig::{Rig, masters, on, sealed};

/// What must not be found in the database.
const SECRET: &str = "canary-4242";

fn secret() -> Payload {
    Payload::from(json!({ "card": SECRET }))
}

/// A saga that holds the secret wherever a saga can.
fn full(now: amends::clock::Timestamp) -> Saga {
    let signals = [("heard".to_owned(), secret())].into();
    let cause = Some(Problem { detail: Some(SECRET.to_owned()), ..Problem::new("refused", SECRET) });
    Saga { input: secret(), signals, cause, state: stuck_for(now), ..saga(Some("k")) }
}

fn stuck_for(now: amends::clock::Timestamp) -> amends::saga::SagaState {
    match stuck(now) {
        amends::saga::SagaState::Stuck(mut stuck) => {
            stuck.problem.title = SECRET.to_owned();
            amends::saga::SagaState::Stuck(stuck)
        }
        other => other,
    }
}

/// All rows as text, hashes too.
async fn dump(kind: Kind, url: &str) -> String {
    let mut all = String::new();
    for table in ["saga", "outbox", "history", "audit"] {
        if kind == Postgres {
            let mut connection = PgConnection::connect(url).await.expect("a connection");
            let sql = AssertSqlSafe(format!("select row_to_json(t)::text from {table} t"));
            let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("rows");
            all.push_str(&rows.concat());
        }
    }
    if kind != Postgres {
        let file = url.trim_start_matches("sqlite://");
        for end in ["", "-wal"] {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(format!("{file}{end}")).unwrap_or_default()));
        }
    }
    all
}

async fn run(kind: Kind, url: &str, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    if kind == Postgres {
        let mut connection = PgConnection::connect(url).await.expect("a connection");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("a statement");
    } else {
        let mut connection = SqliteConnection::connect(url).await.expect("a connection");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("a statement");
    }
}

async fn with(rig: &Rig, keys: &[&str]) -> Rig {
    Rig { store: sealed(rig.store.clone(), keys), url: rig.url.clone() }
}

fn data_keys(store: &Arc<dyn Store>) -> &dyn DataKeyStore {
    store.data_keys().expect("it keeps data keys")
}

async fn write_all(rig: &Rig) -> Saga {
    let one = full(rig.now().await);
    let mut start = new(one.clone());
    start.commands[0].body = secret();
    let mut done = settled(&one, 1, Outcome::Success, Some(secret().text()));
    done.revision = 1;
    start.settled = vec![done];
    let record = |revision: u32, event: EventKind| HistoryRecord { event, ..told(&one, revision) };
    let edit = Operation::Edit { step: StepIndex(0), input: secret() };
    let outcome = ReplyOutcome::Success { output: secret() };
    start.history = vec![
        record(1, EventKind::Signalled { signal: "heard".to_owned(), payload: secret() }),
        record(2, EventKind::Operated { operation: edit }),
        record(3, EventKind::Replied { seq: Seq(1), attempt: 1, outcome }),
    ];
    let hash = hex::encode(secret().canonical_hash());
    let detail = json!({ "toRevision": 2, "sha256": hash, "original": { "seq": 1, "sha256": hash } });
    let audit = AuditRecord { detail: Payload::from(detail), ..audited(Some(one.id), "edit") };
    let changes = Changes { audits: vec![audit], ..starts(vec![start]) };
    assert_eq!(rig.write(changes).await.expect("a commit").starts, [Started::New]);
    one
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_payload_is_readable_in_the_database(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let hash = hex::encode(secret().canonical_hash());
        let encrypted = with(&rig, &["a"]).await;
        let one = write_all(&encrypted).await;
        let text = dump(kind, &rig.url).await;
        assert!(text.contains("$sealed"), "{text}");
        assert!(!text.contains(SECRET) && !text.contains(&hash), "{text}");
        let read = encrypted.saga(one.id).await;
        assert_eq!((&read.saga.input, &read.saga.cause, &read.saga.state), (&one.input, &one.cause, &one.state));
        assert_eq!(read.saga.signals, one.signals);
        assert_eq!(read.commands[0].body, secret());
        assert_eq!(read.commands[0].verified.as_ref().expect("settled").output, Some(secret()));
        let history = encrypted.store.history(one.id).await.expect("a read");
        assert_eq!(format!("{history:?}").matches(SECRET).count(), 3, "{history:?}");
        let audit = encrypted.store.audit(Some(one.id), &Page { after: None, limit: 1 }).await.expect("a read");
        let detail = audit[0].detail.value();
        assert_eq!(detail["sha256"], detail["original"]["sha256"], "equal payloads can be told to be equal");
        assert_eq!(detail["toRevision"], 2);

        // The same without encryption: what was looked for can be found.
        run(kind, &rig.url, "delete from outbox; delete from history; delete from audit; delete from saga").await;
        write_all(&rig).await;
        let text = dump(kind, &rig.url).await;
        assert!(text.contains(SECRET), "{text}");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_with_the_same_input_is_the_same_saga(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        // One from before there were keys, too.
        let (before, after) = (saga(Some("before")), saga(Some("after")));
        rig.write(starts(vec![bare(before.clone())])).await.expect("a commit");
        let rig = with(&rig, &["a"]).await;
        rig.write(starts(vec![bare(after.clone())])).await.expect("a commit");
        for (key, first) in [("before", &before), ("after", &after)] {
            let again = bare(saga(Some(key)));
            let input_hash = again.input_hash;
            let outcome = rig.write(starts(vec![again])).await.expect("a commit").starts;
            assert_eq!(outcome, [Started::Taken { by: first.id, input_hash }], "{key}");
            let other = bare(Saga { input: Payload::trusted("2"), ..saga(Some(key)) });
            let given = other.input_hash;
            match rig.write(starts(vec![other])).await.expect("a commit").starts[..] {
                [Started::Taken { by, input_hash }] => assert!(by == first.id && input_hash != given, "{key}"),
                ref other => panic!("{other:?}"),
            }
        }
        assert_eq!(rig.saga(before.id).await.saga, before, "what was written before is read as it is");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_exchanged_is_not_needed_any_more(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = write_all(&with(&rig, &["a"]).await).await;
        let both = masters(Some("b"), &["a", "b"]);
        let keys = data_keys(&rig.store);
        let page = keys.data_keys(&Page { after: None, limit: 10 }).await.expect("a read");
        assert_eq!(keys.data_key_counts().await.expect("a read"), [("a".to_owned(), 2)]);
        for wrapped in &page {
            let other = both.rewrapped(wrapped).expect("wrapped anew");
            assert!(keys.rewrap_data_key(wrapped, &other).await.expect("a write"));
            assert!(!keys.rewrap_data_key(wrapped, &other).await.expect("a write"), "it was done before");
        }
        assert_eq!(keys.data_key_counts().await.expect("a read"), [("b".to_owned(), 2)]);
        let with_b = with(&rig, &["b"]).await;
        assert_eq!(with_b.saga(one.id).await.saga.input, one.input);
        let again = bare(Saga { input: secret(), ..saga(Some("k")) });
        let input_hash = again.input_hash;
        let outcome = with_b.write(starts(vec![again])).await.expect("a commit").starts;
        assert_eq!(outcome, [Started::Taken { by: one.id, input_hash }], "hashes are keyed as before");
        let newest = keys.newest_data_key(Purpose::Payload).await.expect("a read").expect("there is one");
        assert_eq!(newest.master, "b");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_saga_is_reported_and_parked_and_others_go_on(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let due = due_at(rig.now().await - chrono::TimeDelta::seconds(5));
        with(&rig, &["a"]).await.write(starts(vec![new(due.clone())])).await.expect("a commit");
        // The old key is lost; hashes must be keyed all the same, with a key that is there.
        run(kind, &rig.url, "delete from data_key where purpose = 'hash'").await;
        let plain = rig;
        let rig = with(&plain, &["b"]).await;
        let other = due_at(rig.now().await - chrono::TimeDelta::seconds(5));
        rig.write(starts(vec![new(other.clone())])).await.expect("a commit");

        let error = rig.store.saga(due.id).await.expect_err("its key is missing");
        assert!(matches!(&error, StoreError::KeyMissing { key } if key == "a"), "{error}");
        assert_eq!(error.code(), "ENCRYPTION_KEY_MISSING");
        let listed = rig.store.sagas(&SagaFilter::default(), &Page { after: None, limit: 10 }).await.expect("a list");
        assert_eq!(listed.len(), 2);
        let asked = rig.decide(these([due.id]), |_| panic!("it must not be decided")).await.err();
        assert!(matches!(asked, Some(StoreError::KeyMissing { .. })), "{asked:?}");
        let pending = rig.store.pending(None, 1).await.expect("a list");
        assert_eq!(pending.iter().map(|entry| entry.id.saga).collect::<Vec<_>>(), [other.id]);

        let loaded = rig.load(Wants { due: 10, ..Wants::default() }).await;
        assert_eq!(loaded.sagas.iter().map(|saga| saga.id).collect::<Vec<_>>(), [other.id]);
        let paused = SagaFilter { paused: Some(true), ..SagaFilter::default() };
        let page = Page { after: None, limit: 10 };
        let parked = rig.store.sagas(&paused, &page).await.expect("a list");
        let parked: Vec<_> = parked.iter().map(|found| (found.saga.id, found.saga.revision)).collect();
        assert_eq!(parked, [(due.id, due.revision + 1)]);
        let audit = rig.store.audit(Some(due.id), &Page { after: None, limit: 10 }).await.expect("a list");
        assert!(audit[0].reason.starts_with("ENCRYPTION_KEY_MISSING: "), "{audit:?}");
        let again = rig.load(Wants { due: 10, ..Wants::default() }).await;
        assert_eq!(again.sagas.len(), 1, "it is not due again");

        // With the key it is as it was, and an operator can resume it.
        let both = with(&plain, &["b", "a"]).await;
        assert_eq!(both.saga(due.id).await.saga.input, due.input);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_is_to_be_told_is_parked_without_its_key_and_the_others_are_claimed(
    #[values(Sqlite, Postgres)] kind: Kind,
) {
    on(kind, async |rig| {
        let (lost, kept) = (saga(None), saga(None));
        let told = |saga: &Saga| {
            let webhooks = vec![crate::webhooks::message(saga, "pager")];
            Changes { webhooks, ..starts(vec![bare(saga.clone())]) }
        };
        with(&rig, &["a"]).await.write(told(&lost)).await.expect("a commit");
        run(kind, &rig.url, "delete from data_key where purpose = 'hash'").await;
        let rig = with(&rig, &["b"]).await;
        rig.write(told(&kept)).await.expect("a commit");

        let claimed = crate::webhooks::claim(&rig, &["pager"], std::time::Duration::from_secs(600), 10).await;
        assert_eq!(claimed.iter().map(|delivery| delivery.saga).collect::<Vec<_>>(), [kept.id]);
        let parked = crate::webhooks::all(&rig, Some(true)).await;
        assert_eq!(parked.iter().map(|delivery| delivery.saga).collect::<Vec<_>>(), [lost.id]);
        assert!(parked[0].problem.as_ref().is_some_and(|why| why.contains("key")), "{:?}", parked[0].problem);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_to_another_place_is_refused(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let encrypted = with(&rig, &["a"]).await;
        let (one, other) = (saga(Some("one")), saga(Some("other")));
        encrypted.write(starts(vec![new(one.clone()), new(other.clone())])).await.expect("a commit");
        let swap = "update saga set input = (select s.input from saga s where s.key = 'one') where key = 'other'";
        run(kind, &rig.url, swap).await;
        assert!(matches!(encrypted.store.saga(other.id).await, Err(StoreError::Corrupt(_))));
        run(kind, &rig.url, "update saga set output = input where key = 'one'").await;
        assert!(matches!(encrypted.store.saga(one.id).await, Err(StoreError::Corrupt(_))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_inputs_cannot_be_searched() {
    on(Kind::Sealed, async |rig| {
        let field = Some(FieldIs { path: vec!["orderId".to_owned()], value: "o-1".to_owned() });
        let filter = SagaFilter { field, ..SagaFilter::default() };
        let found = rig.store.sagas(&filter, &Page { after: None, limit: 10 }).await;
        assert!(matches!(found, Err(StoreError::FieldEncrypted)), "{found:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_with_new_keys_agree_on_the_key_of_hashes() {
    on(Sqlite, async |rig| {
        let (one, other) = (
            with(&rig, &["a"]).await,
            Rig { store: sealed(open(&rig.url).await.expect("opened"), &["a"]), url: rig.url.clone() },
        );
        let first = saga(Some("k"));
        one.write(starts(vec![bare(first.clone())])).await.expect("a commit");
        let again = bare(saga(Some("k")));
        let input_hash = again.input_hash;
        let outcome = other.write(starts(vec![again])).await.expect("a commit").starts;
        assert_eq!(outcome, [Started::Taken { by: first.id, input_hash }]);
        other.store.close().await;
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_archived_family_is_found_and_comes_back_encrypted(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let encrypted = with(&rig, &["a"]).await;
        let parent = saga(None);
        let mut start = bare(parent.clone());
        let mut step = command(&parent, 1);
        step.participant = "amends".to_owned();
        step.action = "start".to_owned();
        step.body = Payload::from(json!({ "saga": "refund", "input": { "card": SECRET } }));
        start.commands = vec![step];
        start.settled = vec![settled(&parent, 1, Outcome::Success, Some("1"))];
        let key = format!("{}/step-1/action/1", parent.id);
        let address = amends::saga::ReplyAddress { token: "t".to_owned(), reply_to: "r".to_owned() };
        let of = amends::saga::Parent {
            saga: parent.id,
            step: "step-1".to_owned(),
            depth: 1,
            start: address,
            undo: None,
            held: None,
        };
        let child = Saga {
            definition: DefinitionRef { name: "refund".to_owned(), version: 1 },
            parent: Some(of),
            input: secret(),
            ..saga(Some(&key))
        };
        encrypted.write(starts(vec![start, bare(child.clone())])).await.expect("a commit");
        let done: Vec<_> = [&parent, &child].map(completed).into();
        encrypted.write(updates(done)).await.expect("a commit");
        let archive = encrypted.store.archive().expect("it archives");
        let cutoff = later(rig.now().await);
        let families = archive.families(&[parent.id], cutoff).await.expect("a read");
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].sagas.len(), 2, "the child is found by what stays readable of the command");
        assert!(!serde_json::to_string(&families).expect("JSON").contains(SECRET));
        assert_eq!(archive.remove(&families).await.expect("removed").sagas, 2);
        assert_eq!(archive.restore(&families, false).await.expect("restored").restored, 2);
        assert_eq!(encrypted.saga(child.id).await.saga.input, secret());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_leaves_the_input_as_it_was_written() {
    on(Sqlite, async |rig| {
        let encrypted = with(&rig, &["a"]).await;
        let one = saga(None);
        encrypted.write(starts(vec![new(one.clone())])).await.expect("a commit");
        let input = async || rig.saga(one.id).await.saga.input.text().to_owned();
        let before = input().await;
        let id: SagaId = one.id;
        encrypted
            .decide(these([id]), |loaded| updates(loaded.sagas.iter().map(next).collect()))
            .await
            .expect("a commit");
        assert_eq!(input().await, before);
        assert_eq!(encrypted.saga(id).await.saga.input, one.input);
    })
    .await;
}
