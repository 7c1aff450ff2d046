//! Bulk jobs in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::{SqliteStore, refused, time};
use crate::clock::{Timestamp, after};
use crate::id::{BulkId, SagaId};
use crate::store::bulk::{
    Applied, BulkItem, BulkJob, BulkStore, Check, ItemFilter, ItemOutcome, JobRow, JobState, NewBulk, NotApplied,
    checked, closed_before, from_states,
};
use crate::store::{AuditRecord, Page, StoreError, row};

/// Closes the items that are done with this commit.
pub(super) async fn applied(connection: &mut SqliteConnection, items: &[Applied]) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let values: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({
                "job": item.job.0.simple().to_string(),
                "saga": item.saga.0.simple().to_string(),
                "revision": item.revision,
                "at": item.at.timestamp_micros(),
            })
        })
        .collect();
    let done = sqlx::query(include_str!("sql/bulk_applied.sql")).bind(row::json(&values));
    let done = done.execute(&mut *connection).await.map_err(refused)?;
    if done.rows_affected() == items.len() as u64 { Ok(()) } else { Err(closed_before()) }
}

fn job(found: &SqliteRow) -> Result<BulkJob, StoreError> {
    fn column<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        found: &'r SqliteRow,
        name: &str,
    ) -> Result<T, StoreError> {
        found.try_get(name).map_err(refused)
    }
    let optional = |name: &str| column::<Option<i64>>(found, name)?.map(time).transpose();
    JobRow {
        id: column(found, "id")?,
        action: column(found, "action")?,
        step: column(found, "step")?,
        filter: column(found, "filter")?,
        reason: column(found, "reason")?,
        actor: column(found, "actor")?,
        rate: column(found, "rate")?,
        state: column(found, "state")?,
        total: column(found, "total")?,
        is_bounded: column(found, "is_bounded")?,
        applied: column(found, "applied")?,
        refused: column(found, "refused")?,
        failed: column(found, "failed")?,
        created_at: time(column(found, "created_at")?)?,
        updated_at: time(column(found, "updated_at")?)?,
        ended_at: optional("ended_at")?,
        checked: column(found, "checked")?,
        check_due: optional("check_due")?,
    }
    .read()
}

type ItemRow = (Uuid, Option<String>, Option<String>, Option<String>, Option<u32>, Option<i64>);

fn item((saga, outcome, code, detail, revision, at): ItemRow) -> Result<BulkItem, StoreError> {
    let outcome = outcome.as_deref().map(ItemOutcome::read).transpose()?;
    Ok(BulkItem { saga: SagaId(saga), outcome, code, detail, revision, at: at.map(time).transpose()? })
}

impl SqliteStore {
    fn after_seconds(&self, seconds: u32) -> (Timestamp, Timestamp) {
        let now = self.0.clock.now();
        (now, after(now, Duration::from_secs(seconds.into())))
    }
}

#[async_trait]
impl BulkStore for SqliteStore {
    async fn create(&self, job: &NewBulk, sagas: &[SagaId], record: &AuditRecord) -> Result<(), StoreError> {
        let (job, record) = (job.clone(), record.clone());
        let sagas: Vec<String> = sagas.iter().map(|id| id.0.simple().to_string()).collect();
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                sqlx::query(include_str!("sql/bulk_job_insert.sql"))
                    .bind(job.id.0)
                    .bind(&job.action)
                    .bind(&job.step)
                    .bind(job.filter.text())
                    .bind(&job.reason)
                    .bind(&job.actor)
                    .bind(job.rate)
                    .bind(u32::try_from(sagas.len()).unwrap_or(u32::MAX))
                    .bind(job.is_bounded)
                    .bind(record.at.timestamp_micros())
                    .execute(&mut *transaction)
                    .await
                    .map_err(refused)?;
                sqlx::query(include_str!("sql/bulk_items_insert.sql"))
                    .bind(job.id.0)
                    .bind(row::json(&sagas))
                    .execute(&mut *transaction)
                    .await
                    .map_err(refused)?;
                super::write::audit(&mut transaction, &[record]).await?;
                transaction.commit().await.map_err(refused)
            })
        })
        .await
    }

    async fn job(&self, id: BulkId) -> Result<Option<BulkJob>, StoreError> {
        let found = sqlx::query(include_str!("sql/bulk_job.sql"))
            .bind(id.0)
            .fetch_optional(&self.0.readers)
            .await
            .map_err(refused)?;
        found.as_ref().map(job).transpose()
    }

    async fn jobs(&self, page: &Page<BulkId>) -> Result<Vec<BulkJob>, StoreError> {
        let rows = sqlx::query(include_str!("sql/bulk_jobs.sql"))
            .bind(page.after.map(|after| after.0))
            .bind(page.limit)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        rows.iter().map(job).collect()
    }

    async fn items(&self, id: BulkId, filter: ItemFilter, page: &Page<SagaId>) -> Result<Vec<BulkItem>, StoreError> {
        let rows: Vec<ItemRow> = sqlx::query_as(include_str!("sql/bulk_items.sql"))
            .bind(id.0)
            .bind(filter.as_str())
            .bind(page.after.map(|after| after.0))
            .bind(page.limit)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        rows.into_iter().map(item).collect()
    }

    async fn steer(&self, id: BulkId, to: JobState, check_in: u32, record: &AuditRecord) -> Result<bool, StoreError> {
        let ((now, due), record) = (self.after_seconds(check_in), record.clone());
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let steered = sqlx::query(include_str!("sql/bulk_steer.sql"))
                    .bind(id.0)
                    .bind(to.as_str())
                    .bind(row::json(&from_states(to)))
                    .bind(now.timestamp_micros())
                    .bind(due.timestamp_micros())
                    .execute(&mut *transaction)
                    .await
                    .map_err(refused)?;
                if steered.rows_affected() == 0 {
                    transaction.rollback().await.map_err(refused)?;
                    return Ok(false);
                }
                super::write::audit(&mut transaction, &[record]).await?;
                transaction.commit().await.map_err(refused)?;
                Ok(true)
            })
        })
        .await
    }

    async fn waiting(&self, holder: Uuid, limit: u32) -> Result<Vec<BulkId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/bulk_waiting.sql"))
            .bind(holder)
            .bind(limit)
            .bind(self.0.clock.now().timestamp_micros())
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        Ok(ids.into_iter().map(BulkId).collect())
    }

    async fn lease(&self, id: BulkId, holder: Uuid, seconds: u32) -> Result<Option<BulkJob>, StoreError> {
        let (now, until) = self.after_seconds(seconds);
        self.write(move |connection| {
            Box::pin(async move {
                let found = sqlx::query(include_str!("sql/bulk_lease.sql"))
                    .bind(id.0)
                    .bind(holder)
                    .bind(until.timestamp_micros())
                    .bind(now.timestamp_micros())
                    .fetch_optional(connection)
                    .await
                    .map_err(refused)?;
                found.as_ref().map(job).transpose()
            })
        })
        .await
    }

    async fn close_items(&self, id: BulkId, items: &[NotApplied]) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let items: Vec<Value> = items
            .iter()
            .map(|item| {
                json!({
                    "saga": item.saga.0.simple().to_string(),
                    "outcome": item.outcome.as_str(),
                    "code": item.code,
                    "detail": item.detail,
                })
            })
            .collect();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(include_str!("sql/bulk_close.sql"))
                    .bind(id.0)
                    .bind(row::json(&items))
                    .bind(now.timestamp_micros())
                    .execute(connection)
                    .await
                    .map_err(refused)?;
                Ok(())
            })
        })
        .await
    }

    async fn count(&self, id: BulkId) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        self.write(move |connection| {
            Box::pin(async move {
                let counting = sqlx::query(include_str!("sql/bulk_count.sql")).bind(id.0).bind(now.timestamp_micros());
                counting.execute(connection).await.map_err(refused)?;
                Ok(())
            })
        })
        .await
    }

    async fn finish(&self, id: BulkId, check_in: u32) -> Result<bool, StoreError> {
        let (now, due) = self.after_seconds(check_in);
        self.write(move |connection| {
            Box::pin(async move {
                let finishing = sqlx::query(include_str!("sql/bulk_finish.sql"))
                    .bind(id.0)
                    .bind(now.timestamp_micros())
                    .bind(due.timestamp_micros());
                Ok(finishing.execute(connection).await.map_err(refused)?.rows_affected() == 1)
            })
        })
        .await
    }

    async fn check(&self, id: BulkId) -> Result<Check, StoreError> {
        let now = self.0.clock.now();
        let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(include_str!("sql/bulk_check.sql"))
            .bind(id.0)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        checked(now, rows)
    }

    async fn keep_check(&self, id: BulkId, check: &Check, again_in: Option<u32>) -> Result<(), StoreError> {
        let due = again_in.map(|seconds| self.after_seconds(seconds).1.timestamp_micros());
        let check = row::json(check);
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(include_str!("sql/bulk_keep_check.sql"))
                    .bind(id.0)
                    .bind(check)
                    .bind(due)
                    .execute(connection)
                    .await
                    .map_err(refused)?;
                Ok(())
            })
        })
        .await
    }
}
