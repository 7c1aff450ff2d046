//! The whole, as processes that get killed: PostgreSQL, RabbitMQ, the coordinator and the three MusicCorp services,
//! each with a database of its own. What is asserted is read from the services' own tables.

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amends::client::Client;
use sqlx::postgres::PgPool;
use support::eventually_within;
use support::processes::{Process, free_port};
use support::servers::{PrivatePostgres, PrivateRabbit};

const ORDERS: u64 = 500;

/// The servers, the coordinator, the services.
struct City {
    postgres: PrivatePostgres,
    rabbit: PrivateRabbit,
    url: String,
    coordinator: Process,
    orders: Process,
    payments: Process,
    warehouse: Process,
    folder: tempfile::TempDir,
}

impl City {
    async fn found() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (postgres, rabbit) = support::servers::both().await;
        let admin = PgPool::connect(&postgres.url()).await.expect("PostgreSQL answers");
        for statement in [
            "create database amends",
            "create database orders",
            "create database payments",
            "create database warehouse",
        ] {
            sqlx::query(statement).execute(&admin).await.expect("the database is made");
        }
        let http = format!("127.0.0.1:{}", free_port());
        let store = database(&postgres, "amends");
        let migrated = Command::new(amends())
            .args(["migrate", "--store", &store])
            .stdout(Stdio::null())
            .status()
            .expect("amends runs");
        assert!(migrated.success());

        let log = |name: &str| folder.path().join(format!("{name}.log"));
        let coordinator = Process::start(
            "amends",
            Command::new(amends()).args(["serve", "--store", &store, "--broker", &rabbit.url(), "--http", &http]),
            log("amends"),
        );
        let service = |name: &str| {
            let mut command = Command::new(music_corp());
            command.args([name, "--database", &database(&postgres, name), "--broker", &rabbit.url()]);
            Process::start(name, &mut command, log(name))
        };
        let (orders, payments, warehouse) = (service("orders"), service("payments"), service("warehouse"));
        let url = format!("http://{http}");
        eventually_within(Duration::from_secs(60), "the coordinator is ready", async || {
            reqwest::get(format!("{url}/readyz")).await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        Self { postgres, rabbit, url, coordinator, orders, payments, warehouse, folder }
    }

    fn music_corp(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(music_corp());
        command.args(arguments).env("AMENDS_URL", &self.url);
        for name in ["orders", "payments", "warehouse"] {
            command.env(format!("{}_DATABASE", name.to_uppercase()), database(&self.postgres, name));
        }
        command
    }

    /// Rows of the coordinator's table of sagas whose state is one of `states`.
    async fn count(&self, pool: &PgPool, states: &[&str]) -> u64 {
        eventually_within(Duration::from_secs(60), "the sagas are counted", async || {
            sqlx::query_scalar::<_, i64>("select count(*) from saga where state = any($1)")
                .bind(states)
                .fetch_one(pool)
                .await
                .ok()
                .and_then(|count| u64::try_from(count).ok())
        })
        .await
    }

    /// Waits until so many sagas have ended and others are under way: the moment for a fault.
    async fn midway(&self, pool: &PgPool, at_least: u64) {
        self.ended(pool, at_least).await;
        let ended = self.count(pool, &["COMPLETED", "COMPENSATED"]).await;
        assert!(ended < ORDERS, "all sagas had ended before the fault");
    }

    /// Waits until so many sagas have ended.
    async fn ended(&self, pool: &PgPool, at_least: u64) {
        eventually_within(Duration::from_secs(180), &format!("{at_least} sagas have ended"), async || {
            (self.count(pool, &["COMPLETED", "COMPENSATED"]).await >= at_least).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_is_placed_whole_or_not_at_all_whatever_is_killed() {
    // As every program that speaks HTTP with amends does at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut city = City::found().await;
    let client = Client::new(&city.url, None);
    let definition = std::fs::read_to_string("sagas/place-order.yaml").expect("the shipped definition");
    client.register(&definition).await.expect("the definition is registered");

    let mut load: Child = city
        .music_corp(&["load", "--orders", "500", "--declined-percent", "0", "--out-of-stock-percent", "20"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(city.folder.path().join("load.log")).expect("a log"))
        .spawn()
        .expect("the load runs");

    let pool = PgPool::connect_lazy(&database(&city.postgres, "amends")).expect("the address is right");
    city.midway(&pool, 20).await;
    city.coordinator.kill_and_restart();
    city.midway(&pool, 60).await;
    city.orders.kill_and_restart();
    city.midway(&pool, 100).await;
    city.rabbit.restart().await;
    city.midway(&pool, 140).await;
    city.coordinator.kill_and_restart();
    city.payments.kill_and_restart();
    city.midway(&pool, 200).await;
    city.postgres.restart().await;
    city.midway(&pool, 260).await;
    city.warehouse.kill_and_restart();
    city.midway(&pool, 320).await;
    city.coordinator.kill_and_restart();

    let loaded = tokio::task::spawn_blocking(move || load.wait()).await.expect("joined").expect("waited for");
    assert!(loaded.success(), "every start was acknowledged in the end");
    city.ended(&pool, ORDERS).await;

    // The faults were real.
    assert_eq!(city.coordinator.kills(), 3);
    assert_eq!([city.orders.kills(), city.payments.kills(), city.warehouse.kills()], [1, 1, 1]);

    assert_eq!(city.count(&pool, &["COMPLETED"]).await, ORDERS * 4 / 5);
    assert_eq!(city.count(&pool, &["COMPENSATED"]).await, ORDERS / 5);
    assert_eq!(city.count(&pool, &["RUNNING", "COMPENSATING", "STUCK", "ABANDONED"]).await, 0);
    let pending: i64 = sqlx::query_scalar("select count(*) from outbox where state = 'PENDING'")
        .fetch_one(&pool)
        .await
        .expect("the outbox is read");
    assert_eq!(pending, 0);

    // The services' own tables: each effect once or net zero, stock and money add up.
    let proof = city.music_corp(&["check", "--expect", "500"]).output().expect("the check runs");
    assert!(proof.status.success(), "{}", String::from_utf8_lossy(&proof.stdout));
}

fn database(postgres: &PrivatePostgres, name: &str) -> String {
    let mut url = reqwest::Url::parse(&postgres.url()).expect("a URL");
    url.set_path(name);
    url.to_string()
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
