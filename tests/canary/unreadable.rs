//! A saga that cannot be decrypted takes nothing else down, and hides nothing less.

use std::sync::Arc;

use amends::api::AuthConfig;
use amends::store::sealed::{EncryptedStore, MasterKeys};
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::support::eventually;
use crate::support::http::House;
use crate::support::scripted::Scripted;
use crate::{CAGE, CARD, DEFINITION, WORD, answer, nothing_in};

/// A house whose store is encrypted.
struct Vault {
    house: House,
    url: String,
    _folder: tempfile::TempDir,
}

impl Vault {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let masters = MasterKeys::new(Some("one".to_owned()), [("one".to_owned(), [1; 32])]).expect("a key");
        let store = EncryptedStore::new(store, masters).expect("it is encrypted");
        let house = House::on(Arc::new(store), AuthConfig::default()).await;
        house.coordinator.register(DEFINITION, "test").await.expect("registered");
        Self { house, url, _folder: folder }
    }

    async fn start(&self, order: &str) -> String {
        let start = json!({ "saga": "canary", "input": { "order": order, "card": CARD } });
        let started = self.house.post("/v1/sagas", &start).await;
        assert_eq!(started.status.as_u16(), 201, "{}", started.text);
        started.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Puts the input of `from` in the place of that of `to`: what was encrypted for another place is refused.
    async fn spoil(&self, to: &str, from: &str) {
        let mut connection = SqliteConnection::connect(&self.url).await.expect("a connection");
        let bytes = |id: &str| id.parse::<uuid::Uuid>().expect("an id").as_bytes().to_vec();
        let changed = sqlx::query("update saga set input = (select input from saga where id = $1) where id = $2")
            .bind(bytes(from))
            .bind(bytes(to))
            .execute(&mut connection)
            .await
            .expect("changed");
        assert_eq!(changed.rows_affected(), 1);
        assert_eq!(self.house.get(&format!("/v1/sagas/{to}")).await.status.as_u16(), 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_listed_with_why_and_the_others_as_ever() {
    let vault = Vault::new().await;
    let house = &vault.house;
    let _cage = Scripted::start(&house.broker, CAGE, |command| vec![answer(command)]).await;
    let mut ids = Vec::new();
    for order in ["o-1", "o-2"] {
        let id = vault.start(order).await;
        let signal = json!({ "signal": "heard", "payload": { "word": WORD } });
        assert_eq!(house.post(&format!("/v1/sagas/{id}/signal"), &signal).await.status.as_u16(), 200);
        eventually("it is stuck", async || {
            (house.get(&format!("/v1/sagas/{id}")).await.json()["state"] == "STUCK").then_some(())
        })
        .await;
        ids.push(id);
    }
    vault.spoil(&ids[0], &ids[1]).await;

    let listed = house.get("/v1/sagas?state=STUCK").await;
    nothing_in("the list", &listed.text);
    let items = listed.json()["items"].as_array().expect("items").clone();
    let of = |id: &str| items.iter().find(|item| item["id"] == id).cloned().expect("it is listed");
    let (broken, whole) = (of(&ids[0]), of(&ids[1]));
    assert!(
        broken["key"].is_null() && broken["waitingFor"].as_str().is_some_and(|why| why.contains("decrypted")),
        "{broken}"
    );
    assert!(whole["key"] == "o-2" && whole["stuck"]["error"]["type"] == "croaked", "{whole}");
    let page = house.get("/console/sagas?state=STUCK").await;
    nothing_in("the page", &page.text);
    assert!(page.status.as_u16() == 200 && ids.iter().all(|id| page.text.contains(id.as_str())), "{}", page.text);
    let outbox = house.get("/v1/outbox").await;
    assert_eq!(outbox.status.as_u16(), 200, "{}", outbox.text);
    nothing_in("the outbox", &outbox.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_has_confirmed_of_it_holds_no_other_up() {
    let vault = Vault::new().await;
    // Nobody answers: the confirms of the first commands are to be written down, a second later, with some commit.
    let (spoilt, other) = (vault.start("o-1").await, vault.start("o-2").await);
    vault.spoil(&spoilt, &other).await;
    let refused = "amends_commits_total{kind=\"refused\"}";
    let mut number = 2;
    eventually("a commit is refused on its account", async || {
        number += 1;
        vault.start(&format!("o-{number}")).await;
        let metrics = vault.house.get("/metrics").await.text;
        let count = metrics.lines().find_map(|line| line.strip_prefix(refused))?.trim().parse::<u64>().ok()?;
        (count > 0).then_some(())
    })
    .await;
    // The next ones are as ever.
    for order in ["p-1", "p-2", "p-3"] {
        let id = vault.start(order).await;
        let signal = json!({ "signal": "heard", "payload": { "word": WORD } });
        assert_eq!(vault.house.post(&format!("/v1/sagas/{id}/signal"), &signal).await.status.as_u16(), 200);
    }
}
