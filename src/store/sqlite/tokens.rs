//! API tokens.

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};

use super::write::audit;
use super::{SqliteStore, refused, time};
use crate::clock::{Timestamp, after};
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
        created_at: i64,
        created_by: String,
        expires_at: Option<i64>,
        last_used_at: Option<i64>,
        revoked_at: Option<i64>,
        revoked_by: Option<String>,
        revoke_reason: Option<String>,
    }
}

impl Kept {
    fn read(self) -> Result<ApiToken, StoreError> {
        let revoked = match (self.revoked_at, self.revoked_by, self.revoke_reason) {
            (Some(at), Some(by), Some(reason)) => Some(RevokedToken { at: time(at)?, by, reason }),
            _ => None,
        };
        Ok(ApiToken {
            id: row::number(self.id)?,
            name: self.name,
            role: self.role,
            created_at: time(self.created_at)?,
            created_by: self.created_by,
            expires_at: self.expires_at.map(time).transpose()?,
            last_used_at: self.last_used_at.map(time).transpose()?,
            revoked,
        })
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn make_token(&self, token: &NewToken) -> Result<TokenMade, StoreError> {
        let (now, token) = (self.0.clock.now(), token.clone());
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let made = make(&mut transaction, &token, now).await?;
                transaction.commit().await.map_err(refused)?;
                Ok(made)
            })
        })
        .await
    }

    async fn revoke_token(&self, name: &str, by: &str, reason: &str) -> Result<Revocation, StoreError> {
        let (now, name, by, reason) = (self.0.clock.now(), name.to_owned(), by.to_owned(), reason.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let revocation = revoke(&mut transaction, (&name, &by, &reason), now).await?;
                transaction.commit().await.map_err(refused)?;
                Ok(revocation)
            })
        })
        .await
    }

    async fn all_tokens(&self, page: &Page<u64>) -> Result<Vec<ApiToken>, StoreError> {
        let rows: Vec<Kept> = sqlx::query_as(include_str!("sql/tokens.sql"))
            .bind(page.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(page.limit)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        rows.into_iter().map(Kept::read).collect()
    }

    async fn live_tokens(&self) -> Result<LiveTokens, StoreError> {
        let now = self.0.clock.now();
        let any_ever: bool = sqlx::query_scalar("select exists (select 1 from api_token)")
            .fetch_one(&self.0.readers)
            .await
            .map_err(refused)?;
        let rows: Vec<(i64, String, String, Vec<u8>, Option<i64>)> =
            sqlx::query_as(include_str!("sql/live_tokens.sql"))
                .bind(now.timestamp_micros())
                .bind(MAX_LIVE)
                .fetch_all(&self.0.readers)
                .await
                .map_err(refused)?;
        let read = |(id, name, role, sha256, last_used_at): (i64, String, String, Vec<u8>, Option<i64>)| {
            let sha256 = sha256.try_into().map_err(|_| StoreError::Corrupt(format!("the hash of token `{name}`")))?;
            let last_used_at = last_used_at.map(time).transpose()?;
            Ok(LiveToken { id: row::number(id)?, name, role, sha256, last_used_at })
        };
        let tokens = rows.into_iter().map(read).collect::<Result<_, StoreError>>()?;
        Ok(LiveTokens { now, any_ever, tokens })
    }

    async fn token_used(&self, id: u64) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let coarse = i64::try_from(COARSE.as_micros()).unwrap_or(i64::MAX);
        self.write(move |connection| {
            Box::pin(async move {
                let used = sqlx::query(include_str!("sql/token_used.sql"))
                    .bind(i64::try_from(id).unwrap_or(i64::MAX))
                    .bind(now.timestamp_micros())
                    .bind(now.timestamp_micros() - coarse);
                used.execute(connection).await.map_err(refused)?;
                Ok(())
            })
        })
        .await
    }
}

async fn make(connection: &mut SqliteConnection, token: &NewToken, now: Timestamp) -> Result<TokenMade, StoreError> {
    let live: i64 = sqlx::query_scalar(
        "select count(*) from api_token where revoked_at is null and (expires_at is null or expires_at > $1)",
    )
    .bind(now.timestamp_micros())
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
        .bind(now.timestamp_micros())
        .bind(&token.created_by)
        .bind(token.lifetime.map(|lifetime| after(now, lifetime).timestamp_micros()))
        .fetch_optional(&mut *connection)
        .await
        .map_err(refused)?;
    let Some(made) = made else { return Ok(TokenMade::NameTaken) };
    let made = made.read()?;
    let mut row = audited(&made, "create-token");
    row.reason.clone_from(&token.reason);
    audit(connection, &[row]).await?;
    Ok(TokenMade::New(made))
}

async fn revoke(
    connection: &mut SqliteConnection,
    (name, by, reason): (&str, &str, &str),
    now: Timestamp,
) -> Result<Revocation, StoreError> {
    let revoked: Option<Kept> = sqlx::query_as(include_str!("sql/revoke_token.sql"))
        .bind(name)
        .bind(by)
        .bind(reason)
        .bind(now.timestamp_micros())
        .fetch_optional(&mut *connection)
        .await
        .map_err(refused)?;
    if let Some(revoked) = revoked {
        let revoked = revoked.read()?;
        audit(connection, &[audited(&revoked, "revoke-token")]).await?;
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
