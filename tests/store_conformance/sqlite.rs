//! What only SQLite can get wrong: one file, several connections, other processes. And what is asked of both databases
//! in their own SQL.

use std::time::Duration;

use amends::id::SagaId;
use amends::saga::{Outcome, Saga};
use amends::store::{Changes, Started, StoreError, open};
use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::make::{bare, completed, due_at, later, new, next, saga, settled, starts, these, updates};
use crate::rig::Kind::Sqlite;
use crate::rig::{Rig, at_fresh_address, on, on_sqlite_by_a_clock, side_by_side};

/// The statements in a folder, with their files' names.
pub fn statements(folder: &str) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).expect("the folder");
    let found: Vec<_> = files
        .map(|file| {
            let path = file.expect("a file").path();
            (path.display().to_string(), std::fs::read_to_string(path).expect("a statement"))
        })
        .collect();
    assert!(found.len() >= 10, "only {} statements in {folder}", found.len());
    found
}

/// A saga that waits, with a command PENDING, and one that is over, with a command VERIFIED.
pub async fn one_live_one_over(rig: &Rig) -> (SagaId, SagaId) {
    let (live, over) = (due_at(later(rig.now().await)), saga(Some("over")));
    let changes = Changes {
        starts: [&live, &over].map(|saga| new(saga.clone())).into(),
        settled: vec![settled(&over, 1, Outcome::Success, Some("1"))],
        ..Changes::default()
    };
    rig.write(changes).await.expect("a commit");
    rig.write(updates(vec![completed(&over)])).await.expect("a commit");
    (live.id, over.id)
}

/// What breaks a constraint, and a part of the constraint's name. LIVE and OVER are sagas' ids.
pub const BROKEN: &[(&str, &str)] = &[
    ("update saga set state = 'NONSENSE' where id = LIVE", "state"),
    ("update saga set state = 'running' where id = LIVE", "state"),
    ("update saga set state = 'COMPLETED', due_at = null where id = LIVE", "saga_ended"),
    ("update saga set ended_at = created_at, due_at = null where id = LIVE", "saga_ended"),
    ("update saga set ended_at = null where id = OVER", "saga_ended"),
    ("update saga set state = 'STUCK' where id = LIVE", "saga_stuck"),
    ("update saga set stuck = '{}' where id = LIVE", "saga_stuck"),
    ("update saga set due_at = created_at where id = OVER", "saga_due"),
    ("update saga set paused = (1 = 1) where id = LIVE", "saga_due"),
    ("update saga set revision = 0 where id = LIVE", "revision"),
    ("update saga set next_seq = 0 where id = LIVE", "next_seq"),
    ("update saga set definition_version = 0 where id = LIVE", "definition_version"),
    ("update saga set input_hash = substr(input_hash, 2) where id = LIVE", "input_hash"),
    ("update outbox set state = 'SENT' where saga_id = LIVE", "state"),
    ("update outbox set state = 'VERIFIED' where saga_id = LIVE", "outbox_verified"),
    ("update outbox set state = 'PENDING' where saga_id = OVER", "outbox_verified"),
    ("update outbox set verified_at = null where saga_id = OVER", "outbox_verified"),
    ("update outbox set verified_revision = null where saga_id = OVER", "outbox_verified"),
    ("update outbox set attempt = null where saga_id = OVER", "outbox_verified"),
    ("update outbox set outcome = 'maybe' where saga_id = OVER", "outcome"),
    ("update outbox set outcome = 'failure' where saga_id = OVER", "outbox_output"),
    ("update outbox set attempt = 0 where saga_id = OVER", "attempt"),
    ("update outbox set direction = 'sideways' where saga_id = LIVE", "direction"),
    ("update outbox set direction = 'compensation' where saga_id = LIVE", "outbox_compensates"),
    ("update outbox set compensates = 1 where saga_id = LIVE", "outbox_compensates"),
    ("update outbox set direction = 'compensation', compensates = 0 where saga_id = LIVE", "compensates"),
    ("update outbox set seq = 0 where saga_id = LIVE", "seq"),
    ("update outbox set step_index = -1 where saga_id = LIVE", "step_index"),
    ("update outbox set generation = 0 where saga_id = LIVE", "generation"),
    ("update outbox set decided_revision = 0 where saga_id = LIVE", "decided_revision"),
    ("update outbox set verified_revision = 0 where saga_id = OVER", "verified_revision"),
];

async fn connect(rig: &Rig) -> SqliteConnection {
    SqliteConnection::connect(&rig.url).await.expect("a connection")
}

async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(|_| ())
}

/// Statements that look at the newest so many rows in order of the primary key, and stop there.
const BOUNDED: &[&str] = &["state_counts.sql", "services_settled.sql"];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood_and_none_scans_the_sagas() {
    on(Sqlite, async |rig| {
        let mut connection = connect(&rig).await;
        for (name, sql) in statements("src/store/sqlite/sql") {
            // Two rows of as many placeholders as the statement has columns.
            let columns = (1..=40).filter(|n| sql.contains(&format!("column{n}"))).max().unwrap_or_default();
            let row = format!("({})", vec!["?"; columns].join(","));
            let explain =
                AssertSqlSafe(format!("explain query plan {}", sql.replace(":rows", &format!("{row},{row}"))));
            let plan = sqlx::query_as::<_, (i64, i64, i64, String)>(explain).fetch_all(&mut connection).await;
            let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
            for (.., line) in plan {
                let is_whole = ["SCAN saga", "SCAN s ", "SCAN o ", "SCAN outbox"]
                    .iter()
                    .any(|scan| format!("{line} ").contains(scan));
                // The index holds no more than what is under way.
                let is_live = line.ends_with("INDEX saga_live");
                let is_bounded = sql.contains("limit $1") && BOUNDED.iter().any(|bounded| name.ends_with(bounded));
                assert!(!is_whole || is_live || is_bounded, "{name}: {line}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_refuse_what_the_state_machine_never_does() {
    on(Sqlite, async |rig| {
        let (live, over) = one_live_one_over(&rig).await;
        let blob = |id: SagaId| format!("x'{}'", id.0.simple());
        let mut connection = connect(&rig).await;
        for (broken, constraint) in BROKEN {
            let sql = broken.replace("LIVE", &blob(live)).replace("OVER", &blob(over));
            let error = run(&mut connection, &sql).await.expect_err(broken).to_string();
            assert!(error.contains("CHECK constraint failed") && error.contains(constraint), "{broken}: {error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_when_the_file_is_opened_again() {
    at_fresh_address(Sqlite, async |url: String| {
        let one = saga(Some("k"));
        let store = open(&url).await.expect("the store opens");
        store.migrate().await.expect("migration");
        let rig = Rig { url: url.clone(), store };
        rig.write(starts(vec![new(one.clone())])).await.expect("a commit");
        rig.store.close().await;
        let file = url.trim_start_matches("sqlite://");
        assert!(!std::path::Path::new(&format!("{file}-wal")).exists(), "closed in good order");

        let again = open(&url).await.expect("the store opens");
        again.check_schema().await.expect("it fits");
        assert_eq!(again.saga(one.id).await.expect("a read").expect("it is there").saga, one);
        again.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_on_one_file_take_turns() {
    on(Sqlite, async |rig| {
        let one = saga(None);
        let id = one.id;
        rig.write(starts(vec![bare(one)])).await.expect("a commit");
        let other = Rig { store: open(&rig.url).await.expect("the store opens"), ..rig.clone() };
        side_by_side((0..40).map(|n| {
            let rig = if n % 2 == 0 { rig.clone() } else { other.clone() };
            async move {
                rig.decide(these([id]), |loaded| updates(loaded.sagas.iter().map(next).collect()))
                    .await
                    .expect("a commit")
            }
        }))
        .await;
        assert_eq!(rig.saga(id).await.saga.revision, 41);
        other.store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_the_clock_that_it_was_given() {
    on_sqlite_by_a_clock(async |rig, clock| {
        let one = due_at(later(clock.now()));
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        let due = amends::store::Wants { due: 1, ..Default::default() };
        assert!(rig.load(due.clone()).await.sagas.is_empty());
        clock.advance(Duration::from_secs(3_600));
        let loaded = rig.load(due).await;
        assert_eq!((loaded.now, &loaded.sagas[..]), (clock.now(), &[one][..]));
    })
    .await;
}

#[rstest]
#[case("sqlite://:memory:")]
#[case("sqlite://amends.db?mode=memory")]
#[tokio::test]
async fn a_database_in_memory_is_refused(#[case] url: &str) {
    let Err(error) = open(url).await else { panic!("it opened") };
    assert!(matches!(error, StoreError::Address { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_told_and_left_as_it_is() {
    at_fresh_address(Sqlite, async |url: String| {
        let file = url.trim_start_matches("sqlite://").to_owned();
        std::fs::write(&file, "this is no database, but a letter to somebody who will miss it".repeat(100))
            .expect("a file");
        let before = std::fs::read(&file).expect("the file");
        let error = match open(&url).await {
            Err(error) => error,
            Ok(store) => store.migrate().await.expect_err("it is no database"),
        };
        assert!(error.to_string().contains("not a database"), "{error}");
        assert_eq!(std::fs::read(&file).expect("the file"), before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_that_stays_too_long_is_a_conflict() {
    on(Sqlite, async |rig| {
        let one: Saga = saga(Some("k"));
        let mut other = connect(&rig).await;
        run(&mut other, "begin immediate").await.expect("begun");
        let blocked = rig.write(starts(vec![bare(one.clone())])).await;
        assert!(matches!(blocked, Err(StoreError::Conflict(_))), "{blocked:?}");
        run(&mut other, "rollback").await.expect("released");
        assert_eq!(rig.write(starts(vec![bare(one)])).await.expect("a commit").starts, [Started::New]);
    })
    .await;
}
