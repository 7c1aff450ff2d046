//! What only PostgreSQL can get wrong: locks, connections that are lost, rights, constraints.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use amends::clock::Timestamp;
use amends::id::SagaId;
use amends::store::{Changes, Loaded, Locking, NewSaga, Page, Started, StoreError, Wants, open};
use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::make::{
    audited, bare, before, command, due_at, increment, new, next, saga, settled, starts, these, told, updates,
};
use crate::rig::Kind::Postgres;
use crate::rig::{Rig, admin_url, at_fresh_address, eventually, on, sealed};

/// How long one unit of work waits for another that is under way.
const MEETING: Duration = Duration::from_secs(20);

pub async fn connect(rig: &Rig) -> PgConnection {
    PgConnection::connect(&rig.url).await.expect("a connection")
}

pub async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(|_| ())
}

/// How many of the store's sessions are as `condition` says.
pub async fn sessions(connection: &mut PgConnection, condition: &str) -> i64 {
    let sql = format!(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'amends' and ({condition})"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.expect("a count")
}

/// Ends the store's sessions.
pub async fn end_sessions(connection: &mut PgConnection) {
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and application_name = 'amends'";
    let ended: i64 = sqlx::query_scalar(end).fetch_one(connection).await.expect("a count");
    assert!(ended > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood() {
    on(Postgres, async |rig| {
        let mut connection = connect(&rig).await;
        for (name, sql) in crate::sqlite::statements("src/store/postgres/sql") {
            run(&mut connection, &format!("prepare p as {sql}"))
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            run(&mut connection, "deallocate p").await.expect("it is forgotten");
        }
    })
    .await;
}

/// A generic plan is one that serves any parameters, as the store's prepared statements soon get.
#[rstest]
#[case("load.sql", "array[]::uuid[], 5::bigint", "saga_due")]
#[case("load_unlocked.sql", "array['00000000-0000-7000-8000-000000000001']::uuid[]", "saga_pkey")]
#[case("load.sql", "array['00000000-0000-7000-8000-000000000001']::uuid[], 0::bigint", "saga_pkey")]
#[case("pending.sql", "null, null, '00000000-0000-0000-0000-000000000000', 0, 100::bigint", "saga_live")]
#[case(
    "update_sagas.sql",
    "array[]::uuid[], null, null, null, null, null, null, null, null, null, null, null, null, null, null, null",
    "saga_pkey"
)]
#[tokio::test(flavor = "multi_thread")]
async fn live_sagas_are_found_by_index_among_many_that_are_over(
    #[case] file: &str,
    #[case] parameters: &str,
    #[case] index: &str,
) {
    on(Postgres, async |rig| {
        let mut connection = connect(&rig).await;
        for statement in [
            "insert into saga (id, definition_name, definition_version, state, paused, revision, next_seq, steps, input,
                 input_hash, reads_outputs, due_at, created_at, updated_at, ended_at)
             select gen_random_uuid(), 'd', 1, case when live then 'RUNNING' else 'COMPLETED' end, false, 1, 2, '[]',
                 '{}', sha256(''), false, case when live then now() + n * interval '1 s' end, now(), now(),
                 case when not live then now() end
             from (select n, n % 50 = 0 as live from generate_series(1, 20000) n) many",
            "insert into outbox (saga_id, seq, step, step_index, direction, generation, participant, action, body, state,
                 decided_at, decided_revision, outcome, attempt, verified_at, verified_revision)
             select id, 1, 's', 0, 'action', 1, 'p', 'a', '{}', case when ended_at is null then 'PENDING' else 'VERIFIED' end,
                 now(), 1, case when ended_at is not null then 'success' end, case when ended_at is not null then 1 end,
                 ended_at, case when ended_at is not null then 1 end
             from saga",
            "vacuum analyze",
            "set plan_cache_mode = force_generic_plan",
        ] {
            run(&mut connection, statement).await.expect("a statement");
        }
        let sql = std::fs::read_to_string(format!("src/store/postgres/sql/{file}")).expect("the statement");
        run(&mut connection, &format!("prepare p as {sql}")).await.expect("it is understood");
        let explain = AssertSqlSafe(format!("explain execute p ({parameters})"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut connection).await.expect("a plan");
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{plan}");
        assert!(!plan.contains("Seq Scan on saga"), "{plan}");
    })
    .await;
}

/// Where two units of work wait for each other, on threads of their own. Not for ever: one of them may have failed before.
#[derive(Default)]
struct Meeting {
    count: Mutex<u32>,
    came: Condvar,
}

impl Meeting {
    fn wait(&self) {
        tokio::task::block_in_place(|| {
            let mut count = self.count.lock().expect("no panic");
            *count += 1;
            self.came.notify_all();
            let both = self.came.wait_timeout_while(count, MEETING, |count| *count < 2);
            assert!(!both.expect("no panic").1.timed_out(), "the other one waits for this one, or has failed");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_claims_at_the_same_time_are_disjoint() {
    on(Postgres, async |rig| {
        let past = before(rig.now().await, Duration::from_secs(1));
        rig.write(starts((0..6).map(|_| bare(due_at(past))).collect())).await.expect("a commit");

        // Both hold what they have claimed until the other has claimed too.
        let meet = Arc::new(Meeting::default());
        let claim = || {
            let (rig, meet) = (rig.clone(), meet.clone());
            async move {
                let wants = Wants { due: 4, ..Wants::default() };
                let (loaded, _) = rig
                    .decide(wants, move |_| {
                        meet.wait();
                        Changes::default()
                    })
                    .await
                    .expect("a claim");
                loaded.sagas.into_iter().map(|saga| saga.id).collect::<Vec<_>>()
            }
        };
        let (mut one, two) = tokio::join!(tokio::spawn(claim()), tokio::spawn(claim()));
        let (one, two) = (one.as_mut().expect("no panic"), two.expect("no panic"));
        let mut sizes = [one.len(), two.len()];
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 4]);
        assert!(one.iter().all(|id| !two.contains(id)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_taken_after_the_locks() {
    on(Postgres, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        let (mut holder, mut watcher) = (connect(&rig).await, connect(&rig).await);
        run(&mut holder, "begin").await.expect("begun");
        run(&mut holder, &format!("select from saga where id = '{}' for update", one.id)).await.expect("locked");

        let waiting = tokio::spawn({
            let (rig, id) = (rig.clone(), one.id);
            async move { rig.load(these([id])).await.now }
        });
        eventually("the store waits for the lock", async || {
            (sessions(&mut watcher, "wait_event_type = 'Lock'").await == 1).then_some(())
        })
        .await;
        let released: Timestamp =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut holder).await.expect("the time");
        run(&mut holder, "rollback").await.expect("released");

        assert!(waiting.await.expect("no panic") >= released);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_that_only_check_one_writes_and_the_other_is_refused_whole() {
    on(Postgres, async |rig| {
        let (one, two) = (saga(None), saga(None));
        rig.write(starts(vec![bare(one.clone()), bare(two.clone())])).await.expect("a commit");

        // Both have looked before either writes.
        let meet = Arc::new(Meeting::default());
        let increment = |own: SagaId| {
            let (rig, meet, shared) = (rig.clone(), meet.clone(), one.id);
            async move {
                let wants = Wants { locking: Locking::Checks, ..these([shared, own]) };
                let decide = move |loaded: &Loaded| {
                    meet.wait();
                    updates(loaded.sagas.iter().map(next).collect())
                };
                rig.decide(wants, decide).await.map(|_| ())
            }
        };
        let other = saga(None);
        rig.write(starts(vec![bare(other.clone())])).await.expect("a commit");
        let (first, second) = tokio::join!(tokio::spawn(increment(two.id)), tokio::spawn(increment(other.id)));
        let outcomes = [first.expect("no panic"), second.expect("no panic")];

        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(StoreError::Conflict(_)))).count();
        assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), refused), (1, 1), "{outcomes:?}");
        assert_eq!(rig.saga(one.id).await.saga.revision, 2);
        let own = [rig.saga(two.id).await.saga.revision, rig.saga(other.id).await.saga.revision];
        assert_eq!(own.iter().sum::<u32>(), 3, "of the one that was refused nothing is written: {own:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_ended_while_idle_is_no_error() {
    on(Postgres, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        let mut watcher = connect(&rig).await;
        end_sessions(&mut watcher).await;
        let wants = Wants { locking: Locking::Checks, ..these([one.id]) };
        rig.decide(wants, increment).await.expect("another connection serves");
        assert_eq!(rig.saga(one.id).await.saga.revision, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_a_conflict_and_leaves_nothing() {
    on(Postgres, async |rig| {
        let (one, two) = (saga(None), saga(None));
        rig.write(starts(vec![bare(one.clone()), bare(two.clone())])).await.expect("a commit");
        let (mut other, mut watcher) = (connect(&rig).await, connect(&rig).await);
        // The store's session looks for deadlocks first, and is the one to give way.
        run(&mut other, "set deadlock_timeout = '1min'; begin").await.expect("begun");
        run(&mut other, &format!("select from saga where id = '{}' for update", two.id)).await.expect("locked");

        let stuck = tokio::spawn({
            let (rig, ids) = (rig.clone(), [one.id, two.id]);
            async move { rig.decide(these(ids), |loaded| updates(loaded.sagas.iter().map(next).collect())).await }
        });
        eventually("the store waits for the second saga", async || {
            (sessions(&mut watcher, "wait_event_type = 'Lock'").await == 1).then_some(())
        })
        .await;
        run(&mut other, &format!("select from saga where id = '{}' for update", one.id)).await.expect("locked");

        let outcome = stuck.await.expect("no panic");
        assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
        run(&mut other, "rollback").await.expect("released");
        assert_eq!(rig.saga(one.id).await.saga.revision, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_transaction_stays_open_when_nobody_waits_any_more() {
    on(Postgres, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![new(one.clone())])).await.expect("a commit");
        for round in 0..300_u64 {
            let limit = Duration::from_micros(round * 10);
            let _ = tokio::time::timeout(limit, rig.decide(these([one.id]), increment)).await;
            let _ = tokio::time::timeout(limit, rig.store.saga(one.id)).await;
            let _ = tokio::time::timeout(limit, rig.store.pending(None, 5)).await;
        }
        let mut watcher = connect(&rig).await;
        eventually("all transactions have ended", async || {
            (sessions(&mut watcher, "state like 'idle in transaction%' or state = 'active'").await == 0).then_some(())
        })
        .await;
        // Nobody's lock is left either.
        rig.load(these([one.id])).await;
    })
    .await;
}

/// When a connection is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// As the client commits, before the server learns of it.
    BeforeCommit,
    /// After the server has answered the commit, before the client learns of it.
    AfterCommit,
    /// In the middle of the transaction.
    AtInsert,
    /// As the client sends the one statement that commits by itself, before the server learns of it.
    BeforeWrite,
    /// After the server has answered that.
    AfterWrite,
}

/// A key that nothing else holds: found in what is sent.
const KEY: &str = "cut-here";

/// A line to PostgreSQL that is cut as `cut` says once it is told to.
async fn cut_line(cut: Cut, armed: Arc<std::sync::atomic::AtomicBool>, fired: Arc<Notify>) -> u16 {
    use std::sync::atomic::Ordering::SeqCst;
    let url = reqwest::Url::parse(&admin_url()).expect("a URL");
    let server = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (armed, fired, server) = (armed.clone(), fired.clone(), server.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.expect("PostgreSQL answers");
                let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
                let mut cutting = false;
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => {
                            let Ok(read @ 1..) = read else { return };
                            let sent = &up[..read];
                            let word: &[u8] = match cut {
                                Cut::AtInsert => b"insert into outbox",
                                Cut::BeforeCommit | Cut::AfterCommit => b"commit",
                                Cut::BeforeWrite | Cut::AfterWrite => KEY.as_bytes(),
                            };
                            if armed.load(SeqCst) && sent.windows(word.len()).any(|part| part == word) {
                                armed.store(false, SeqCst);
                                fired.notify_one();
                                cutting = true;
                                if !matches!(cut, Cut::AfterCommit | Cut::AfterWrite) {
                                    return;
                                }
                            }
                            if server.write_all(sent).await.is_err() { return };
                        }
                        read = server.read(&mut down) => {
                            let Ok(read @ 1..) = read else { return };
                            if cutting || client.write_all(&down[..read]).await.is_err() { return };
                        }
                    }
                }
            });
        }
    });
    port
}

#[rstest]
#[case(Cut::BeforeCommit, true, false)]
#[case(Cut::AfterCommit, true, true)]
#[case(Cut::AtInsert, false, false)]
#[case(Cut::BeforeWrite, true, false)]
#[case(Cut::AfterWrite, true, true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_lost_at_commit_is_unknown_and_before_it_nothing(
    #[case] cut: Cut,
    #[case] is_unknown: bool,
    #[case] is_written: bool,
) {
    on(Postgres, async |rig| {
        let (armed, fired) = (Arc::new(false.into()), Arc::new(Notify::new()));
        let port = cut_line(cut, Arc::clone(&armed), fired.clone()).await;
        let mut url = reqwest::Url::parse(&rig.url).expect("a URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(port)).expect("a port");
        let far = Rig { store: open(url.as_str()).await.expect("the store opens"), ..rig.clone() };

        let one = saga(Some(KEY));
        let locking = match cut {
            Cut::BeforeWrite | Cut::AfterWrite => Locking::Checks,
            Cut::BeforeCommit | Cut::AfterCommit | Cut::AtInsert => Locking::Waits,
        };
        // Its statements are prepared: what is sent then is what is carried out.
        if locking == Locking::Checks {
            far.write(starts(vec![new(saga(None))])).await.expect("a commit");
        }
        armed.store(true, std::sync::atomic::Ordering::SeqCst);
        let changes = starts(vec![new(one.clone())]);
        let outcome = far.store.commit(Wants { locking, ..Wants::default() }, Box::new(move |_| changes)).await;

        tokio::time::timeout(Duration::from_secs(1), fired.notified()).await.expect("the line was cut");
        assert_eq!(matches!(outcome, Err(StoreError::Unknown(_))), is_unknown, "{outcome:?}");
        assert_eq!(matches!(outcome, Err(StoreError::Unavailable(_))), !is_unknown, "{outcome:?}");
        // What a caller does next: repeat, and be told by the key. The lost session may hold the key a little longer.
        let again = far.write(starts(vec![bare(saga(Some(KEY)))])).await.expect("the line is back");
        match &again.starts[..] {
            [Started::Taken { by, .. }] => assert_eq!((*by, is_written), (one.id, true)),
            [Started::New] => assert!(!is_written),
            other => panic!("{other:?}"),
        }
        far.store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_ended_is_unavailable_and_the_next_one_works() {
    on(Postgres, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        let (mut holder, mut watcher) = (connect(&rig).await, connect(&rig).await);
        run(&mut holder, "begin").await.expect("begun");
        run(&mut holder, &format!("select from saga where id = '{}' for update", one.id)).await.expect("locked");
        let waiting = tokio::spawn({
            let (rig, id) = (rig.clone(), one.id);
            async move { rig.decide(these([id]), |_| Changes::default()).await.map(|_| ()) }
        });
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and application_name = 'amends' and wait_event_type = 'Lock'";
        eventually("the store's session is ended", async || {
            let ended: i64 = sqlx::query_scalar(end).fetch_one(&mut watcher).await.expect("a count");
            (ended == 1).then_some(())
        })
        .await;
        let outcome = waiting.await.expect("no panic");
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        run(&mut holder, "rollback").await.expect("released");
        rig.load(these([one.id])).await;
    })
    .await;
}

#[tokio::test]
async fn no_error_tells_the_password() {
    for address in [
        "postgres://anna:hunter2@127.0.0.1:1/db",
        "postgres://anna:hunter2@127.0.0.1:port/db",
        "postgres://anna:hun/ter2@127.0.0.1:1/db",
        "postgres://anna:hunter2",
        "postgres://127.0.0.1:1/db?user=anna&password=hunter2",
    ] {
        let Err(error) = open(address).await else { panic!("{address} opened") };
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter2") && !told.contains("ter2"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_role_does_all_but_ddl_and_deleting() {
    at_fresh_address(Postgres, async |url: String| {
        let owner = open(&url).await.expect("the store opens");
        owner.migrate().await.expect("migration");
        owner.close().await;

        // Roles belong to the whole server: names of this test's own.
        let own = format!("role_{}", amends::id::fresh_request_id().simple());
        let (runtime, reader, user) = (format!("{own}_runtime"), format!("{own}_reader"), format!("{own}_user"));
        let script = include_str!("../../docs/least-privilege.sql");
        let script = script.replace("amends_runtime", &runtime).replace("amends_reader", &reader);
        let script = script.replace("amends_archivist", &format!("{own}_archivist"));
        let mut admin = PgConnection::connect(&url).await.expect("a connection");
        run(&mut admin, &script).await.expect("the script runs");
        run(&mut admin, &format!("create user {user} password 'p' in role {runtime}")).await.expect("a user");

        let mut as_user = reqwest::Url::parse(&url).expect("a URL");
        as_user.set_username(&user).expect("a user");
        as_user.set_password(Some("p")).expect("a password");
        let outcome = tokio::spawn(run_as(as_user.to_string())).await;

        let mut admin = PgConnection::connect(&url).await.expect("a connection");
        run(&mut admin, &format!("drop owned by {runtime}, {reader}, {user}; drop role {user}, {runtime}, {reader}"))
            .await
            .expect("the roles go");
        outcome.expect("no panic");
    })
    .await;
}

async fn run_as(url: String) {
    let rig = Rig { store: open(&url).await.expect("the store opens"), url };
    let store = &rig.store;
    store.check_schema().await.expect("it fits");
    let past = before(rig.now().await, Duration::from_secs(1));
    let (one, two) = (due_at(past), saga(Some("k")));
    let first = NewSaga { history: vec![told(&one, 1)], ..new(one.clone()) };
    rig.write(starts(vec![first, new(two)])).await.expect("starts");
    assert!(matches!(
        rig.write(starts(vec![new(saga(Some("k")))])).await.expect("a start").starts[..],
        [Started::Taken { .. }]
    ));
    let changes = Changes {
        updates: vec![next(&one)],
        commands: vec![command(&one, 2)],
        settled: vec![settled(&one, 1, amends::saga::Outcome::Success, Some("1"))],
        history: vec![told(&one, 2)],
        audits: vec![audited(Some(one.id), "because")],
        ..Changes::default()
    };
    rig.decide(Wants { due: 5, ..these([one.id]) }, move |_| changes).await.expect("a commit");
    assert_eq!(rig.saga(one.id).await.commands.len(), 2);
    assert_eq!(store.history(one.id).await.expect("history").len(), 2);
    assert_eq!(store.audit(None, &Page { after: None, limit: 9 }).await.expect("audit").len(), 1);
    assert_eq!(store.sagas(&Default::default(), &Page { after: None, limit: 9 }).await.expect("a list").len(), 2);
    assert_eq!(store.outbox(&Default::default(), &Page { after: None, limit: 9 }).await.expect("a list").len(), 3);
    assert_eq!(store.pending(None, 9).await.expect("pending").len(), 2);
    store.counts().await.expect("counts");
    store.next_due().await.expect("a read");
    store.token_keys([1; 32]).await.expect("keys");
    let encrypted = sealed(store.clone(), &["a"]);
    encrypted.commit(Wants::default(), Box::new(|_| Changes::default())).await.expect("data keys are made");
    store.pending_migrations().await.expect("a read");
    let definition = amends::store::DefinitionRecord {
        reference: one.definition.clone(),
        hash: [1; 32],
        source: String::new(),
        registered_at: one.created_at,
        registered_by: "anna".to_owned(),
        deprecated: None,
    };
    store.register(&definition).await.expect("registration");
    let deprecation = amends::store::DeprecationChange {
        reference: one.definition.clone(),
        is_deprecated: true,
        at: one.created_at,
        actor: "anna".to_owned(),
        reason: "too slow".to_owned(),
    };
    let deprecate = Changes { deprecations: vec![deprecation], ..Changes::default() };
    rig.write(deprecate).await.expect("a commit");
    store.definitions(None).await.expect("a list");
    store.newest(std::slice::from_ref(&one.definition.name)).await.expect("a read");
    let webhooks = store.webhooks().expect("they are kept");
    webhooks.claim(&["pager".to_owned()], Duration::from_secs(1), 1).await.expect("a claim");
    webhooks.delivered(one.id.0, 1).await.expect("a delete");
    webhooks.delivery_counts(1).await.expect("counts");

    let mut connection = connect(&rig).await;
    for denied in [
        "create table mine (id int)",
        "alter table saga add column mine int",
        "drop table audit",
        "delete from saga",
        "delete from outbox",
        "delete from history",
        "update history set at = now()",
        "update audit set reason = ''",
        "delete from audit",
        "truncate audit",
        "update definition set source = ''",
        "update deprecation set is_deprecated = false",
        "delete from deprecation",
        "update token_key set secret = sha256('')",
        "insert into amends_migration (version, name) values (2, 'mine')",
    ] {
        let error = run(&mut connection, denied).await.expect_err(denied);
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{denied}: {error}");
    }
    connection.close().await.expect("the connection ends");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_refuse_what_the_state_machine_never_does() {
    on(Postgres, async |rig| {
        let (live, over) = crate::sqlite::one_live_one_over(&rig).await;
        let mut connection = connect(&rig).await;
        for (broken, constraint) in crate::sqlite::BROKEN {
            let sql = broken.replace("LIVE", &format!("'{live}'")).replace("OVER", &format!("'{over}'"));
            let error = run(&mut connection, &sql).await.expect_err(broken);
            let error = error.as_database_error().expect("the database's error");
            assert_eq!(error.code().as_deref(), Some("23514"), "{broken}: {error}");
            let named = error.constraint().unwrap_or_default();
            assert!(named.contains(constraint), "{broken}: refused by {named}");
        }
    })
    .await;
}
