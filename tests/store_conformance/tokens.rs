//! API tokens, and the audit log by who and what.

use std::time::Duration;

use amends::clock::Clock;
use amends::store::tokens::{LiveToken, NewToken, Revocation, TokenMade};
use amends::store::{AuditFilter, AuditRecord, Changes, Page};
use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::make::{audited, later, saga};
use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{Rig, eventually, on};

fn new(name: &str, byte: u8) -> NewToken {
    NewToken {
        name: name.to_owned(),
        role: "operator".to_owned(),
        sha256: [byte; 32],
        created_by: "cli:anna".to_owned(),
        lifetime: None,
        reason: "a pipeline".to_owned(),
    }
}

async fn make(rig: &Rig, token: NewToken) -> TokenMade {
    rig.store.tokens().expect("it keeps tokens").make_token(&token).await.expect("a commit")
}

async fn live(rig: &Rig) -> Vec<LiveToken> {
    rig.store.tokens().expect("it keeps tokens").live_tokens().await.expect("a read").tokens
}

async fn audit(rig: &Rig) -> Vec<AuditRecord> {
    rig.store.audits(&AuditFilter::default(), &Page { after: None, limit: 100 }).await.expect("a read")
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_and_revoked_each_with_its_audit_row(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let tokens = rig.store.tokens().expect("it keeps tokens");
        assert!(!tokens.live_tokens().await.expect("a read").any_ever);
        let before = rig.now().await;
        let TokenMade::New(made) =
            make(&rig, NewToken { lifetime: Some(Duration::from_secs(90)), ..new("ci", 1) }).await
        else {
            panic!("it is new")
        };
        assert_eq!((made.name.as_str(), made.role.as_str(), made.created_by.as_str()), ("ci", "operator", "cli:anna"));
        assert!(made.created_at >= before && made.last_used_at.is_none() && made.revoked.is_none());
        let lasts = made.expires_at.expect("it expires") - made.created_at;
        assert_eq!(lasts.num_seconds(), 90);
        let found = live(&rig).await;
        assert_eq!((found.len(), found[0].sha256, found[0].id), (1, [1; 32], made.id));

        assert_eq!(make(&rig, new("ci", 2)).await, TokenMade::NameTaken);
        assert_eq!(tokens.revoke_token("nobody", "cli:anna", "lost").await.expect("a read"), Revocation::Unknown);
        let Revocation::Done(revoked) = tokens.revoke_token("ci", "cli:ben", "lost").await.expect("a commit") else {
            panic!("it was good")
        };
        let told = revoked.revoked.as_ref().map(|revoked| (revoked.by.as_str(), revoked.reason.as_str()));
        assert_eq!(told, Some(("cli:ben", "lost")));
        let again = tokens.revoke_token("ci", "cli:eve", "again").await.expect("a read");
        assert_eq!(again, Revocation::Before(revoked.clone()));
        assert_eq!(live(&rig).await, []);
        assert!(tokens.live_tokens().await.expect("a read").any_ever, "it stays known that there was one");
        // The name is free again.
        assert!(matches!(make(&rig, new("ci", 3)).await, TokenMade::New(_)));
        let all = tokens.all_tokens(&Page { after: None, limit: 10 }).await.expect("a list");
        assert_eq!(all.iter().map(|token| token.revoked.is_some()).collect::<Vec<_>>(), [false, true]);
        let rest = tokens.all_tokens(&Page { after: Some(all[0].id), limit: 10 }).await.expect("a list");
        assert_eq!(rest, [revoked]);

        let rows = audit(&rig).await;
        let told: Vec<_> = rows.iter().map(|row| (&*row.action, &*row.actor, &*row.reason)).collect();
        assert_eq!(
            told,
            [
                ("create-token", "cli:anna", "a pipeline"),
                ("revoke-token", "cli:ben", "lost"),
                ("create-token", "cli:anna", "a pipeline"),
            ]
        );
        assert_eq!(
            (&rows[1].detail.value()["token"], &rows[1].detail.value()["role"]),
            (&"ci".into(), &"operator".into())
        );
        assert!(!format!("{rows:?}").contains(&"01".repeat(32)), "never a hash");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_to_tokens_that_cannot_be_written_down(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        assert!(matches!(make(&rig, new("ci", 1)).await, TokenMade::New(_)));
        let rename = AssertSqlSafe("alter table audit rename to gone".to_owned());
        if kind == Sqlite {
            let mut connection = SqliteConnection::connect(&rig.url).await.expect("a connection");
            sqlx::raw_sql(rename).execute(&mut connection).await.expect("renamed");
        } else {
            let mut connection = PgConnection::connect(&rig.url).await.expect("a connection");
            sqlx::raw_sql(rename).execute(&mut connection).await.expect("renamed");
        }
        let tokens = rig.store.tokens().expect("it keeps tokens");
        tokens.make_token(&new("other", 2)).await.expect_err("there is no audit log");
        tokens.revoke_token("ci", "cli:anna", "lost").await.expect_err("there is no audit log");
        let names: Vec<_> = live(&rig).await.into_iter().map(|token| token.name).collect();
        assert_eq!(names, ["ci"]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_until_it_expires_and_its_use_is_noted_coarsely(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let short = NewToken { lifetime: Some(Duration::from_millis(1)), ..new("short", 1) };
        assert!(matches!(make(&rig, short).await, TokenMade::New(_)));
        assert!(matches!(make(&rig, new("long", 2)).await, TokenMade::New(_)));
        let left = eventually("the first expires", async || {
            let found = live(&rig).await;
            (found.len() == 1).then(|| found[0].clone())
        })
        .await;
        assert_eq!((left.name.as_str(), left.last_used_at), ("long", None));
        let tokens = rig.store.tokens().expect("it keeps tokens");
        tokens.token_used(left.id).await.expect("a write");
        let first = live(&rig).await[0].last_used_at.expect("it was used");
        tokens.token_used(left.id).await.expect("a write");
        assert_eq!(live(&rig).await[0].last_used_at, Some(first), "not again so soon");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_listed_by_saga_actor_action_and_time(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = saga(None);
        let base = audited(None, "x");
        let audits = vec![
            AuditRecord { actor: "ben".to_owned(), ..base.clone() },
            AuditRecord { saga: Some(one.id), ..base.clone() },
            AuditRecord { action: "skip".to_owned(), at: later(base.at), ..base.clone() },
        ];
        rig.write(Changes { audits, ..Changes::default() }).await.expect("a commit");
        let ids = async |filter: AuditFilter| -> Vec<u64> {
            let page = Page { after: None, limit: 10 };
            rig.store.audits(&filter, &page).await.expect("a list").into_iter().map(|row| row.id).collect()
        };
        let none = AuditFilter::default;
        assert_eq!(ids(none()).await, [3, 2, 1]);
        assert_eq!(ids(AuditFilter { actor: Some("ben".to_owned()), ..none() }).await, [1]);
        assert_eq!(ids(AuditFilter { action: Some("pause".to_owned()), ..none() }).await, [2, 1]);
        assert_eq!(ids(AuditFilter { saga: Some(one.id), ..none() }).await, [2]);
        assert_eq!(ids(AuditFilter { since: Some(later(base.at)), ..none() }).await, [3]);
        let both = AuditFilter { actor: Some("ben".to_owned()), action: Some("skip".to_owned()), ..none() };
        assert_eq!(ids(both).await, [] as [u64; 0]);
        assert_eq!(ids(AuditFilter { since: Some(later(later(Clock::System.now()))), ..none() }).await, [] as [u64; 0]);
        let page = Page { after: Some(3), limit: 1 };
        let next = rig.store.audits(&none(), &page).await.expect("a list");
        assert_eq!(next.iter().map(|row| row.id).collect::<Vec<_>>(), [2]);
    })
    .await;
}
