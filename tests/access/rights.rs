//! The rights on PostgreSQL of `docs/least-privilege.sql`.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};

use amends::api::{AuthConfig, Role};
use amends::client::views::{OperateRequest, StartBody};
use amends::client::{Action, AuditQuery};
use futures_util::FutureExt;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::make;
use crate::support::http::{House, PLACE};
use crate::support::scripted::{Scripted, done, refusal, success};
use crate::support::{eventually, fresh_database};

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_runs_through_under_the_runtime_role_and_the_audit_log_stays() {
    let url = fresh_database().await;
    let owner = amends::store::open(&url).await.expect("the store opens");
    owner.migrate().await.expect("the schema is made");
    let token = make(&owner, "anna", Role::Operator, None).await;

    // Roles belong to the whole server: names of this test's own.
    let own = format!("role_{}", amends::id::fresh_request_id().simple());
    let script = include_str!("../../docs/least-privilege.sql").replace("amends_", &format!("{own}_"));
    // Those are tables.
    let script = script.replace(&format!("{own}_migration"), "amends_migration");
    let (user, roles) = (format!("{own}_serve"), format!("{own}_runtime, {own}_reader, {own}_archivist"));
    let mut admin = PgConnection::connect(&url).await.expect("a connection");
    let run = async |admin: &mut PgConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.expect("the statement is carried out");
    };
    run(&mut admin, script).await;
    run(&mut admin, format!("create user {user} password 'p' in role {own}_runtime")).await;

    let mut as_user = reqwest::Url::parse(&url).expect("a URL");
    as_user.set_username(&user).expect("a user");
    as_user.set_password(Some("p")).expect("a password");
    let outcome = AssertUnwindSafe(under(as_user.as_str(), &token)).catch_unwind().await;
    run(&mut admin, format!("drop owned by {user}, {roles}; drop role {user}, {roles}")).await;
    owner.close().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn under(url: &str, token: &str) {
    let store = amends::store::open(url).await.expect("the store opens");
    let house = House::on(store.clone(), AuthConfig::default().with_store(store.clone())).await;
    let (_, served) = house.serve().await;
    let client = amends::client::Client::new(&served.url, Some(token));
    client.register(PLACE).await.expect("it is registered");
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await;
    let has_picked = AtomicBool::new(false);
    let picks = move |_: &amends::message::Command| {
        let is_short = has_picked.swap(true, Ordering::SeqCst);
        vec![if is_short { refusal("out-of-stock") } else { done() }]
    };
    let _warehouse = Scripted::start(&house.broker, "warehouse", picks).await;
    for (order, state) in [("good", "COMPLETED"), ("short", "COMPENSATED")] {
        let started = client.start(&StartBody::new("place", json!({ "order": order, "total": 3 }))).await;
        let id = started.expect("it starts").saga.id;
        eventually(&format!("{order} becomes {state}"), async || {
            client.saga(&id).await.ok().filter(|saga| saga.state == state)
        })
        .await;
        // An operator's action is refused by the state, not by the database.
        let because = OperateRequest { reason: "too late".to_owned(), step: None };
        let refused = client.operate(&id, Action::Pause, &because, None).await.expect_err("it has ended");
        assert_eq!(refused.code(), Some("ACTION_NOT_ALLOWED"));
    }
    let audit = client.audit(&AuditQuery::default()).await.expect("a page").items;
    let told: Vec<_> = audit.iter().map(|row| (row.actor.as_str(), row.action.as_str())).collect();
    assert_eq!(told, [("anna", "register"), ("cli:test", "create-token")]);
    eventually("the token's use is written down", async || {
        let tokens = store.tokens().expect("it keeps tokens").live_tokens().await.expect("a read").tokens;
        tokens[0].last_used_at
    })
    .await;

    let mut connection = PgConnection::connect(url).await.expect("a connection");
    for denied in [
        "update audit set reason = ''",
        "delete from audit",
        "truncate audit",
        "alter table audit disable trigger all",
        "update history set at = now()",
        "delete from history",
        "delete from saga",
        "create table mine (id int)",
        "drop table audit",
        "insert into api_token (name, role, sha256, created_at, created_by) values ('me', 'admin', sha256('x'), now(), 'me')",
        "update api_token set role = 'admin'",
        "update api_token set revoked_at = null",
        "delete from api_token",
    ] {
        let error = sqlx::raw_sql(denied).execute(&mut connection).await.expect_err(denied);
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{denied}: {error}");
    }
    house.coordinator.stop().await;
    store.close().await;
}
