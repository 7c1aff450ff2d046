//! What operators have paused.

use async_trait::async_trait;
use sqlx::Connection;

use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::pauses::{ParticipantPause, PauseChange, PauseStore, read};
use crate::store::task::to_the_end;

#[async_trait]
impl PauseStore for PostgresStore {
    async fn pauses(&self) -> Result<Vec<ParticipantPause>, StoreError> {
        let rows = sqlx::query_as(include_str!("sql/pauses.sql")).fetch_all(&self.0.pool).await.map_err(refused)?;
        Ok(rows.into_iter().map(read).collect())
    }

    async fn change_pause(&self, change: &PauseChange) -> Result<Option<Timestamp>, StoreError> {
        let (store, change) = (self.clone(), change.clone());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let changing = match change.is_paused {
                true => sqlx::query_scalar(include_str!("sql/pause_participant.sql"))
                    .bind(&change.participant)
                    .bind(change.column())
                    .bind(&change.actor)
                    .bind(&change.reason),
                false => sqlx::query_scalar(include_str!("sql/resume_participant.sql"))
                    .bind(&change.participant)
                    .bind(change.column())
                    .bind(change.seen),
            };
            let at: Option<Timestamp> = changing.fetch_optional(&mut *transaction).await.map_err(refused)?;
            let Some(at) = at else { return Ok(None) };
            let row = change.audit(at);
            sqlx::query(include_str!("sql/insert_audit.sql"))
                .bind(vec![row.at])
                .bind(vec![row.actor])
                .bind(vec![row.saga.map(|id| id.0)])
                .bind(vec![row.action])
                .bind(vec![row.reason])
                .bind(vec![row.detail.text()])
                .execute(&mut *transaction)
                .await
                .map_err(refused)?;
            transaction.commit().await.map_err(refused)?;
            Ok(Some(at))
        })
        .await
    }
}
