//! MusicCorp as processes on servers of its own, and what the judge needs to know of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use amends::broker::Broker;
use amends::client::Client;
use amends::client::views::StartBody;
use amends::clock::Timestamp;
use amends::failpoint::Point;
use amends::id::SagaId;
use amends::message::TokenKeys;
use amends::payload::Payload;
use amends::saga::Direction;
use amends::store::Store;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use tokio::sync::{Mutex, MutexGuard};

use crate::clocks::Clocks;
use crate::judge::{Answer, Answered, Effect, Evidence, InboxRow, Kept, Sighting, Tap, evidence};
use crate::support::eventually_within;
use crate::support::processes::{Process, free_port};
use crate::support::servers::{PrivatePostgres, PrivateRabbit};

pub const SERVICES: [&str; 3] = ["orders", "payments", "warehouse"];
/// The time-out of one attempt in this city.
pub const ATTEMPT: Duration = Duration::from_secs(2);

/// The machine has few cores: one city at a time.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct City {
    pub postgres: PrivatePostgres,
    pub rabbit: PrivateRabbit,
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub tap: Tap,
    pub witness: Arc<Witness>,
    pub clocks: Clocks,
    pub folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// Who starts orders, looks at sagas, and remembers all of it.
pub struct Witness {
    pub store: Arc<dyn Store>,
    pub answers: Mutex<Vec<Answered>>,
    pub sightings: Mutex<Vec<Sighting>>,
    /// How many of the newest sagas were under way when they were last looked at.
    pub under_way: AtomicUsize,
}

impl Witness {
    /// Starts an order and remembers the answer, if there was one.
    pub async fn order(&self, client: &Client, order: &Value) -> Option<Answer> {
        let body = StartBody::new("place-order", order.clone());
        let said = tokio::time::timeout(Duration::from_secs(5), client.start(&body)).await.ok()?;
        let answer = match said {
            Ok(started) => Answer::Saga(started.saga.id.parse().expect("an id")),
            Err(error) if error.to_string().contains("KEY_CONFLICT") => Answer::KeyConflict,
            Err(_) => return None,
        };
        self.answers.lock().await.push(Answered {
            definition: "place-order".to_owned(),
            key: order["orderId"].as_str().map(str::to_owned),
            input: Payload::from(order.clone()),
            answer: answer.clone(),
        });
        Some(answer)
    }
}

/// A coordinator's process.
pub struct Server {
    pub name: String,
    pub url: String,
    pub process: Process,
    pub client: Client,
}

/// How a process is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    pub point: Point,
    pub at: u32,
}

/// What the judge has to know of the end of a run.
pub struct End {
    /// When the last fault was healed, on the store's clock.
    pub quiet_since: Timestamp,
    /// How long every saga may take from then on.
    pub patience: Duration,
    /// How far the store's clock was set back in all.
    pub set_back: Duration,
    /// How many replies the tap may have missed.
    pub may_be_unheard: usize,
}

impl City {
    /// The servers, the databases, the definition; nothing runs yet.
    pub async fn found() -> Self {
        let turn = TURN.lock().await;
        // As every program that speaks HTTP with amends does at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy_programs(folder.path());
        // Where its user can read it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("permissions are set");
        let clocks = Clocks::new(folder.path());
        let starting = PrivatePostgres::start_fragile("256 1536", clocks.library());
        let (postgres, rabbit) = tokio::join!(starting, PrivateRabbit::start());
        let admin = PgPool::connect(&postgres.url()).await.expect("PostgreSQL answers");
        let small = postgres.disk("space").map(|disk| disk.join("tables"));
        if let Some(small) = &small {
            let statement = format!("create tablespace small location '{}'", small.display());
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&admin).await.expect("the tablespace is made");
        }
        for statement in [
            if small.is_some() { "create database amends tablespace small" } else { "create database amends" },
            "create database orders",
            "create database payments",
            "create database warehouse",
        ] {
            sqlx::query(statement).execute(&admin).await.expect("the database is made");
        }
        let url = database(&postgres.url(), "amends");
        let broker = amends::broker::open(&rabbit.url()).await.expect("the address is right");
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        broker.declare(&amends::broker::Topology::coordinator()).await.expect("the broker answers");
        let tap = Tap::on(&broker).await;
        let witness = Witness {
            store: store.clone(),
            answers: Mutex::default(),
            sightings: Mutex::default(),
            under_way: AtomicUsize::new(0),
        };
        Self { postgres, rabbit, store, broker, tap, witness: Arc::new(witness), clocks, folder, _turn: turn }
    }

    pub fn database(&self, name: &str) -> String {
        database(&self.postgres.url(), name)
    }

    /// The shipped definition, with time-outs that fit a test.
    pub fn definition(&self) -> PathBuf {
        let text = std::fs::read_to_string("sagas/place-order.yaml").expect("the shipped definition");
        let impatient = text.replace("timeout: 30s", "timeout: 2s").replace("maxInterval: 10s", "maxInterval: 2s");
        assert_ne!(text, impatient, "the definition has other time-outs");
        let path = self.folder.path().join("place-order.yaml");
        std::fs::write(&path, impatient).expect("written");
        path
    }

    /// Where a process that dies at a named point says so.
    pub fn marker(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.died"))
    }

    /// The variables that have the process `name` die at a point.
    pub fn armed(&self, name: &str, Armed { point, at }: Armed) -> [(&'static str, String); 2] {
        [
            ("AMENDS_FAILPOINT", format!("{}:{at}", point.name())),
            ("AMENDS_FAILPOINT_MARKER", self.marker(name).display().to_string()),
        ]
    }

    fn start(&self, name: &str, command: &mut Command, armed: Option<Armed>) -> Process {
        let marker = self.marker(name);
        let _ = std::fs::remove_file(&marker);
        let mut environment = self.clocks.environment(name);
        if let Some(armed) = armed {
            environment.extend(self.armed(name, armed));
        }
        Process::start_with(name, command, &environment, self.folder.path().join(format!("{name}.log")))
    }

    /// A coordinator, ready or (if it is to die) perhaps dead already.
    pub async fn coordinator(&self, name: &str, store: &str, broker: &str, armed: Option<Armed>) -> Server {
        let http = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(self.folder.path().join("amends"));
        command
            .args(["serve", "--store", store, "--broker", broker, "--http", &http, "--definitions"])
            .arg(self.definition());
        let mut process = self.start(name, &mut command, armed);
        let url = format!("http://{http}");
        eventually_within(Duration::from_secs(60), &format!("{name} is ready"), async || {
            if armed.is_some() && process.has_ended() {
                return Some(());
            }
            let answer = reqwest::get(format!("{url}/readyz")).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        Server { name: name.to_owned(), process, client: Client::new(&url, None), url }
    }

    /// The coordinator without anything between it and its servers.
    pub async fn plain(&self, name: &str, armed: Option<Armed>) -> Server {
        self.coordinator(name, &self.database("amends"), &self.rabbit.url(), armed).await
    }

    /// One of the three services.
    pub fn service(&self, name: &str, database: &str, broker: &str, armed: Option<Armed>) -> Process {
        let mut command = Command::new(self.folder.path().join("music_corp"));
        command.args([name, "--database", database, "--broker", broker]);
        self.start(name, &mut command, armed)
    }

    /// Everything that there is to know, as the judge wants it.
    pub async fn evidence(&self, end: End) -> Evidence {
        let End { quiet_since, patience, set_back, may_be_unheard } = end;
        let store = &*self.store;
        let sagas = evidence::sagas(store).await;
        let keys: HashMap<&str, SagaId> =
            sagas.values().filter_map(|stored| Some((stored.saga.key.as_deref()?, stored.saga.id))).collect();
        let (mut inbox, mut effects) = (Vec::new(), Vec::new());
        for name in SERVICES {
            let pool = PgPool::connect(&self.database(name)).await.expect("the service's database answers");
            inbox.extend(self::inbox(&pool).await);
            for (order, step, direction, part) in done(name, &pool).await {
                // An effect of no saga is one of a saga that was lost.
                let saga = keys.get(&*order).unwrap_or_else(|| panic!("{name}: {step} of {order}, which is no saga"));
                let (participant, step) = (name.to_owned(), step.to_owned());
                effects.push(Effect { participant, saga: *saga, step, direction, part });
            }
        }
        let keys = store.token_keys([0; 32]).await.expect("the keys are read");
        self.tap.catch_up().await;
        Evidence {
            definitions: evidence::definitions(store).await,
            starts: self.witness.answers.lock().await.clone(),
            sagas,
            sightings: self.witness.sightings.lock().await.clone(),
            inbox,
            effects,
            tap: self.tap.heard().await.clone(),
            may_be_unheard,
            keys: TokenKeys::new(keys).expect("there is a key"),
            quiet_since,
            patience,
            set_back,
        }
    }

    /// The saga's state, if the store says so.
    pub async fn state(&self, id: SagaId) -> Option<&'static str> {
        Some(self.store.saga(id).await.ok()??.saga.state.as_str())
    }
}

async fn inbox(pool: &PgPool) -> Vec<InboxRow> {
    let rows: Vec<(String, String, Option<String>, Timestamp)> =
        sqlx::query_as("select key, status, outcome, recorded_at from amends_inbox")
            .fetch_all(pool)
            .await
            .expect("the inbox is read");
    let kept = |status: &str, outcome: Option<&str>| match (status, outcome) {
        ("tombstone", _) => Kept::Tombstone,
        (_, Some("success")) => Kept::Success,
        _ => Kept::Failure,
    };
    let row = |(key, status, outcome, at): (String, String, Option<String>, Timestamp)| InboxRow {
        key,
        kept: kept(&status, outcome.as_deref()),
        at,
    };
    rows.into_iter().map(row).collect()
}

/// What a service has done, in order: order, step, direction, part.
async fn done(service: &str, pool: &PgPool) -> Vec<(String, &'static str, Direction, String)> {
    let (action, undo) = (Direction::Action, Direction::Compensation);
    if service == "orders" {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select id, status from orders").fetch_all(pool).await.expect("the orders are read");
        let effects = |(id, status): (String, String)| {
            let then = match &*status {
                "CONFIRMED" => Some(("confirm-order", action)),
                "CANCELLED" => Some(("create-order", undo)),
                _ => None,
            };
            let all = [Some(("create-order", action)), then].into_iter().flatten();
            all.map(|(step, direction)| (id.clone(), step, direction, String::new())).collect::<Vec<_>>()
        };
        return rows.into_iter().flat_map(effects).collect();
    }
    let statement = match service {
        "payments" => "select order_id, kind, '' from movements order by id",
        _ => "select order_id, kind, sku from movements order by id",
    };
    let rows: Vec<(String, String, String)> =
        sqlx::query_as(statement).fetch_all(pool).await.expect("the movements are read");
    let effect = |(id, kind, part): (String, String, String)| {
        let (step, direction) = match &*kind {
            "authorise" => ("authorise-payment", action),
            "void" => ("authorise-payment", undo),
            "capture" => ("capture-payment", action),
            "pick" => ("pick", action),
            "unpick" => ("pick", undo),
            _ => ("dispatch", action),
        };
        (id, step, direction, part)
    };
    rows.into_iter().map(effect).collect()
}

/// An order; one that the warehouse, or the bank, will refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    Whole,
    SoldOut,
    Declined,
}

impl Plan {
    pub fn order(self, id: &str) -> Value {
        let sku = if self == Self::SoldOut { "out-of-print" } else { "blue-train" };
        let card = if self == Self::Declined { "declined-card" } else { "card-1" };
        let lines = [json!({ "sku": "giant-steps", "quantity": 1 }), json!({ "sku": sku, "quantity": 2 })];
        json!({ "orderId": id, "customer": "anna", "lines": lines, "total": 1_500, "card": card })
    }
}

pub fn database(postgres: &str, name: &str) -> String {
    let mut url = reqwest::Url::parse(postgres).expect("a URL");
    url.set_path(name);
    url.to_string()
}

/// Whether `amends migrate` on a fresh database dies, and what it says.
pub fn migrate(store: &str, armed: Option<(Armed, PathBuf)>) -> bool {
    let mut command = Command::new(amends());
    command.args(["migrate", "--store", store]).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((Armed { point, at }, marker)) = armed {
        command.env("AMENDS_FAILPOINT", format!("{}:{at}", point.name())).env("AMENDS_FAILPOINT_MARKER", marker);
    }
    command.status().expect("amends runs").success()
}

/// What runs is not to change under a build meanwhile.
fn copy_programs(folder: &std::path::Path) {
    for (program, name) in [(PathBuf::from(amends()), "amends"), (music_corp(), "music_corp")] {
        std::fs::copy(program, folder.join(name)).expect("the program is copied");
    }
}

fn amends() -> &'static str {
    env!("CARGO_BIN_EXE_amends")
}

/// The example's binary: built by `cargo test` along with the tests.
fn music_corp() -> PathBuf {
    let path = PathBuf::from(amends()).with_file_name("examples").join("music_corp");
    assert!(path.exists(), "{} is missing: run ./test, or cargo build --examples", path.display());
    path
}
