//! API tokens.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::write::insert_audit;
use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::store::task::to_the_end;
use crate::store::tokens::{
    ApiToken, COARSE, LiveToken, LiveTokens, MAX_LIVE, NewToken, Revocation, RevokedToken, TokenMade, TokenStore,
    audited,
};
use crate::store::{Page, StoreError, row};

crate::store::row::columns! {
    /// A row without its hash.
    struct Kept {
        id: i64,
        name: String,
        role: String,
        created_at: Timestamp,
        created_by: String,
        expires_at: Option<Timestamp>,
        last_used_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
        revoked_by: Option<String>,
        revoke_reason: Option<String>,
    }
}

impl Kept {
    fn read(self) -> Result<ApiToken, StoreError> {
        let revoked = match (self.revoked_at, self.revoked_by, self.revoke_reason) {
            (Some(at), Some(by), Some(reason)) => Some(RevokedToken { at, by, reason }),
            _ => None,
        };
        Ok(ApiToken {
            id: row::number(self.id)?,
            name: self.name,
            role: self.role,
            created_at: self.created_at,
            created_by: self.created_by,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
            revoked,
        })
    }
}

#[async_trait]
impl TokenStore for PostgresStore {
    async fn make_token(&self, token: &NewToken) -> Result<TokenMade, StoreError> {
        let (store, token) = (self.clone(), token.clone());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let made = make(&mut transaction, &token).await?;
            transaction.commit().await.map_err(refused)?;
            Ok(made)
        })
        .await
    }

    async fn revoke_token(&self, name: &str, by: &str, reason: &str) -> Result<Revocation, StoreError> {
        let (store, name, by, reason) = (self.clone(), name.to_owned(), by.to_owned(), reason.to_owned());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let revocation = revoke(&mut transaction, &name, &by, &reason).await?;
            transaction.commit().await.map_err(refused)?;
            Ok(revocation)
        })
        .await
    }

    async fn all_tokens(&self, page: &Page<u64>) -> Result<Vec<ApiToken>, StoreError> {
        let rows: Vec<Kept> = sqlx::query_as(include_str!("sql/tokens.sql"))
            .bind(page.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(i64::from(page.limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(Kept::read).collect()
    }

    async fn live_tokens(&self) -> Result<LiveTokens, StoreError> {
        let (now, any_ever): (Timestamp, bool) =
            sqlx::query_as("select clock_timestamp(), exists (select from api_token)")
                .fetch_one(&self.0.pool)
                .await
                .map_err(refused)?;
        if !any_ever {
            return Ok(LiveTokens { now, any_ever, tokens: Vec::new() });
        }
        let rows: Vec<(i64, String, String, Vec<u8>, Option<Timestamp>)> =
            sqlx::query_as(include_str!("sql/live_tokens.sql"))
                .bind(now)
                .bind(i64::from(MAX_LIVE))
                .fetch_all(&self.0.pool)
                .await
                .map_err(refused)?;
        let read = |(id, name, role, sha256, last_used_at): (i64, String, String, Vec<u8>, Option<Timestamp>)| {
            let sha256 = sha256.try_into().map_err(|_| StoreError::Corrupt(format!("the hash of token `{name}`")))?;
            Ok(LiveToken { id: row::number(id)?, name, role, sha256, last_used_at })
        };
        let tokens = rows.into_iter().map(read).collect::<Result<_, StoreError>>()?;
        Ok(LiveTokens { now, any_ever, tokens })
    }

    async fn token_used(&self, id: u64) -> Result<(), StoreError> {
        let used = sqlx::query(include_str!("sql/token_used.sql"))
            .bind(i64::try_from(id).unwrap_or(i64::MAX))
            .bind(COARSE.as_secs_f64());
        used.execute(&self.0.pool).await.map_err(refused)?;
        Ok(())
    }
}

async fn make(connection: &mut PgConnection, token: &NewToken) -> Result<TokenMade, StoreError> {
    let live: i64 = sqlx::query_scalar(
        "select count(*) from api_token
         where revoked_at is null and (expires_at is null or expires_at > clock_timestamp())",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(refused)?;
    if live >= i64::from(MAX_LIVE) {
        return Ok(TokenMade::TooMany);
    }
    let made: Option<Kept> = sqlx::query_as(include_str!("sql/insert_token.sql"))
        .bind(&token.name)
        .bind(&token.role)
        .bind(token.sha256.as_slice())
        .bind(&token.created_by)
        .bind(token.lifetime.map(|lifetime| lifetime.as_secs_f64()))
        .fetch_optional(&mut *connection)
        .await
        .map_err(refused)?;
    let Some(made) = made else { return Ok(TokenMade::NameTaken) };
    let made = made.read()?;
    let mut audit = audited(&made, "create-token");
    audit.reason.clone_from(&token.reason);
    insert_audit(connection, &[audit]).await?;
    Ok(TokenMade::New(made))
}

async fn revoke(connection: &mut PgConnection, name: &str, by: &str, reason: &str) -> Result<Revocation, StoreError> {
    let revoked: Option<Kept> = sqlx::query_as(include_str!("sql/revoke_token.sql"))
        .bind(name)
        .bind(by)
        .bind(reason)
        .fetch_optional(&mut *connection)
        .await
        .map_err(refused)?;
    if let Some(revoked) = revoked {
        let revoked = revoked.read()?;
        insert_audit(connection, &[audited(&revoked, "revoke-token")]).await?;
        return Ok(Revocation::Done(revoked));
    }
    let before: Option<Kept> = sqlx::query_as(include_str!("sql/token_of_name.sql"))
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(match before {
        Some(before) => Revocation::Before(before.read()?),
        None => Revocation::Unknown,
    })
}
