//! What operators have paused.

use async_trait::async_trait;
use sqlx::Connection;

use super::{SqliteStore, refused, time};
use crate::clock::Timestamp;
use crate::store::pauses::{ParticipantPause, PauseChange, PauseStore, read};
use crate::store::{StoreError, row};

#[async_trait]
impl PauseStore for SqliteStore {
    async fn pauses(&self) -> Result<Vec<ParticipantPause>, StoreError> {
        let rows: Vec<(String, String, i64, String, String)> =
            sqlx::query_as(include_str!("sql/pauses.sql")).fetch_all(&self.0.readers).await.map_err(refused)?;
        let one = |(participant, action, since, by, reason)| Ok(read((participant, action, time(since)?, by, reason)));
        rows.into_iter().map(one).collect()
    }

    async fn change_pause(&self, change: &PauseChange) -> Result<Option<Timestamp>, StoreError> {
        let (now, change) = (self.0.clock.now(), change.clone());
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let changing = match change.is_paused {
                    true => sqlx::query(include_str!("sql/pause_participant.sql"))
                        .bind(&change.participant)
                        .bind(change.column())
                        .bind(&change.actor)
                        .bind(&change.reason)
                        .bind(now.timestamp_micros()),
                    false => sqlx::query(include_str!("sql/resume_participant.sql"))
                        .bind(&change.participant)
                        .bind(change.column())
                        .bind(change.seen.map(|seen| seen.timestamp_micros())),
                };
                if changing.execute(&mut *transaction).await.map_err(refused)?.rows_affected() == 0 {
                    return Ok(None);
                }
                let told = change.audit(now);
                let told = serde_json::json!([{
                    "at": now.timestamp_micros(), "actor": told.actor, "saga": null, "action": told.action,
                    "reason": told.reason, "detail": told.detail.text(),
                }]);
                let insert = sqlx::query(include_str!("sql/insert_audit.sql")).bind(row::json(&told));
                insert.execute(&mut *transaction).await.map_err(refused)?;
                transaction.commit().await.map_err(refused)?;
                time(now.timestamp_micros()).map(Some)
            })
        })
        .await
    }
}
