//! A store of each kind for one test, and what is left of it is removed at its end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::clock::{Clock, ManualClock, Timestamp};
use amends::id::SagaId;
use amends::store::memory::MemoryStore;
use amends::store::sealed::{EncryptedStore, MasterKeys};
use amends::store::sqlite::SqliteStore;
use amends::store::{Changes, Committed, Loaded, Locking, SagaRecord, Store, StoreError, Wants, open};
use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Sqlite,
    Postgres,
    /// SQLite with payloads encrypted.
    Sealed,
}

/// A store of a test's own, its schema up to date.
#[derive(Clone)]
pub struct Rig {
    pub url: String,
    pub store: Arc<dyn Store>,
}

/// Runs `test` on a store of `kind`.
pub async fn on(kind: Kind, test: impl AsyncFnOnce(Rig)) {
    at_fresh_address(kind, async |url: String| {
        let store: Arc<dyn Store> = match kind {
            Kind::Memory => Arc::new(MemoryStore::new(Clock::System)),
            Kind::Sqlite | Kind::Postgres => open(&url).await.expect("the store opens"),
            Kind::Sealed => sealed(open(&url).await.expect("the store opens"), &["a"]),
        };
        store.migrate().await.expect("the schema is made");
        let rig = Rig { url, store: store.clone() };
        let outcome = AssertUnwindSafe(test(rig)).catch_unwind().await;
        store.close().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    })
    .await;
}

/// The store with its payloads encrypted: the first of the keys is active, and each is what its name says.
pub fn sealed(store: Arc<dyn Store>, keys: &[&str]) -> Arc<dyn Store> {
    let masters = masters(keys.first().copied(), keys);
    Arc::new(EncryptedStore::new(store, masters).expect("it keeps data keys"))
}

/// Keys, each of which is what its name says.
pub fn masters(active: Option<&str>, keys: &[&str]) -> MasterKeys {
    let keys = keys.iter().map(|name| ((*name).to_owned(), [name.as_bytes()[0]; 32]));
    MasterKeys::new(active.map(str::to_owned), keys).expect("keys")
}

/// Gives `test` an address where nothing is yet.
pub async fn at_fresh_address(kind: Kind, test: impl AsyncFnOnce(String)) {
    match kind {
        Kind::Memory => test("memory:".to_owned()).await,
        Kind::Sqlite | Kind::Sealed => {
            let folder = tempfile::tempdir().expect("a temporary folder");
            test(format!("sqlite://{}/amends.db", folder.path().display())).await;
        }
        Kind::Postgres => {
            let name = format!("amends_{}", amends::id::fresh_request_id().simple());
            administer(&format!("create database {name}")).await;
            let outcome = AssertUnwindSafe(test(with_database(&admin_url(), &name))).catch_unwind().await;
            administer(&format!("drop database {name} with (force)")).await;
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// The PostgreSQL of `./test`, as a superuser.
pub fn admin_url() -> String {
    std::env::var("AMENDS_TEST_STORE")
        .expect("AMENDS_TEST_STORE is not set, and PostgreSQL is part of this suite: run ./test, which starts a server")
}

fn with_database(url: &str, name: &str) -> String {
    let mut url = reqwest::Url::parse(url).expect("a URL");
    url.set_path(name);
    url.to_string()
}

/// The SQLite store on a file of its own, going by a clock that the test moves.
pub async fn on_sqlite_by_a_clock(test: impl AsyncFnOnce(Rig, ManualClock)) {
    at_fresh_address(Kind::Sqlite, async |url: String| {
        let clock = ManualClock::starting_at(Clock::System.now());
        let store = SqliteStore::connect_with_clock(&url, Clock::Manual(clock.clone())).await.expect("it opens");
        store.migrate().await.expect("migration");
        let rig = Rig { url, store: Arc::new(store) };
        test(rig.clone(), clock).await;
        rig.store.close().await;
    })
    .await;
}

/// Runs one statement as the superuser.
pub async fn administer(sql: &str) {
    let mut connection = PgConnection::connect(&admin_url()).await.expect("PostgreSQL answers");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("the statement is carried out");
    connection.close().await.expect("the connection ends");
}

/// Polls until `condition` gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let look = tokio::time::timeout_at(deadline + PATIENCE, condition());
        if let Some(found) = look.await.unwrap_or_else(|_| panic!("in vain, and the last look has not ended: {what}")) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Rig {
    /// The store's time.
    pub async fn now(&self) -> Timestamp {
        self.store.health().await.expect("health").now
    }

    /// Commits what does not depend on what is stored.
    pub async fn write(&self, changes: Changes) -> Result<Committed, StoreError> {
        let wants = Wants { locking: Locking::Checks, ..Wants::default() };
        self.store.commit(wants, Box::new(move |_| changes)).await
    }

    /// Loads and writes nothing.
    pub async fn load(&self, wants: Wants) -> Loaded {
        self.decide(wants, |_| Changes::default()).await.expect("a commit of nothing").0
    }

    /// Commits what `decide` says; also gives what it was shown.
    pub async fn decide(
        &self,
        wants: Wants,
        decide: impl FnOnce(&Loaded) -> Changes + Send + 'static,
    ) -> Result<(Loaded, Committed), StoreError> {
        let shown = Arc::new(Mutex::new(None));
        let show = shown.clone();
        let decide = move |loaded: Loaded| {
            let changes = decide(&loaded);
            *show.lock().expect("no panic") = Some(loaded);
            changes
        };
        let committed = self.store.commit(wants, Box::new(decide)).await?;
        let loaded = shown.lock().expect("no panic").take().expect("decide was called");
        Ok((loaded, committed))
    }

    /// The saga, which must be there.
    pub async fn saga(&self, id: SagaId) -> SagaRecord {
        self.store.saga(id).await.expect("a read").expect("the saga is there")
    }
}

/// Runs the futures side by side, each on a task of its own.
pub async fn side_by_side<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.expect("no panic"));
    }
    done
}
