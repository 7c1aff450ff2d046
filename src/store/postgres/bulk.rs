//! Bulk jobs in PostgreSQL.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::id::{BulkId, SagaId};
use crate::store::bulk::{
    Applied, BulkItem, BulkJob, BulkStore, Check, ItemFilter, ItemOutcome, JobRow, JobState, NewBulk, NotApplied,
    checked, closed_before, from_states,
};
use crate::store::row::{self, int};
use crate::store::task::to_the_end;
use crate::store::{AuditRecord, Page, StoreError};

/// Items that are written with one statement.
const CHUNK: usize = 10_000;

/// Closes the items that are done with this commit.
pub(super) async fn applied(connection: &mut PgConnection, items: &[Applied]) -> Result<(), StoreError> {
    if items.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(include_str!("sql/bulk_applied.sql"))
        .bind(items.iter().map(|item| item.job.0).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.saga.0).collect::<Vec<_>>())
        .bind(items.iter().map(|item| int(item.revision)).collect::<Vec<_>>())
        .bind(items.iter().map(|item| item.at).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    if done.rows_affected() == items.len() as u64 { Ok(()) } else { Err(closed_before()) }
}

async fn audit(connection: &mut PgConnection, record: &AuditRecord) -> Result<(), StoreError> {
    sqlx::query(include_str!("sql/insert_audit.sql"))
        .bind(vec![record.at])
        .bind(vec![record.actor.as_str()])
        .bind(vec![record.saga.map(|id| id.0)])
        .bind(vec![record.action.as_str()])
        .bind(vec![record.reason.as_str()])
        .bind(vec![record.detail.text()])
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

type ItemRow = (Uuid, Option<String>, Option<String>, Option<String>, Option<i32>, Option<Timestamp>);

fn item((saga, outcome, code, detail, revision, at): ItemRow) -> Result<BulkItem, StoreError> {
    let outcome = outcome.as_deref().map(ItemOutcome::read).transpose()?;
    let revision = revision.map(row::number).transpose()?;
    Ok(BulkItem { saga: SagaId(saga), outcome, code, detail, revision, at })
}

#[async_trait]
impl BulkStore for PostgresStore {
    async fn create(&self, job: &NewBulk, sagas: &[SagaId], record: &AuditRecord) -> Result<(), StoreError> {
        let (store, job, record) = (self.clone(), job.clone(), record.clone());
        let sagas: Vec<Uuid> = sagas.iter().map(|id| id.0).collect();
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            sqlx::query(include_str!("sql/bulk_job_insert.sql"))
                .bind(job.id.0)
                .bind(&job.action)
                .bind(&job.step)
                .bind(job.filter.text())
                .bind(&job.reason)
                .bind(&job.actor)
                .bind(int(job.rate))
                .bind(int(u32::try_from(sagas.len()).unwrap_or(u32::MAX)))
                .bind(job.is_bounded)
                .bind(record.at)
                .execute(&mut *transaction)
                .await
                .map_err(refused)?;
            for chunk in sagas.chunks(CHUNK) {
                sqlx::query(include_str!("sql/bulk_items_insert.sql"))
                    .bind(job.id.0)
                    .bind(chunk)
                    .execute(&mut *transaction)
                    .await
                    .map_err(refused)?;
            }
            audit(&mut transaction, &record).await?;
            transaction.commit().await.map_err(refused)
        })
        .await
    }

    async fn job(&self, id: BulkId) -> Result<Option<BulkJob>, StoreError> {
        let found: Option<JobRow> = sqlx::query_as(include_str!("sql/bulk_job.sql"))
            .bind(id.0)
            .fetch_optional(&self.0.pool)
            .await
            .map_err(refused)?;
        found.map(JobRow::read).transpose()
    }

    async fn jobs(&self, page: &Page<BulkId>) -> Result<Vec<BulkJob>, StoreError> {
        let rows: Vec<JobRow> = sqlx::query_as(include_str!("sql/bulk_jobs.sql"))
            .bind(page.after.map(|after| after.0))
            .bind(i64::from(page.limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(JobRow::read).collect()
    }

    async fn items(&self, id: BulkId, filter: ItemFilter, page: &Page<SagaId>) -> Result<Vec<BulkItem>, StoreError> {
        let rows: Vec<ItemRow> = sqlx::query_as(include_str!("sql/bulk_items.sql"))
            .bind(id.0)
            .bind(filter.as_str())
            .bind(page.after.map(|after| after.0))
            .bind(i64::from(page.limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(item).collect()
    }

    async fn steer(&self, id: BulkId, to: JobState, check_in: u32, record: &AuditRecord) -> Result<bool, StoreError> {
        let (store, record) = (self.clone(), record.clone());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let steered = sqlx::query(include_str!("sql/bulk_steer.sql"))
                .bind(id.0)
                .bind(to.as_str())
                .bind(from_states(to))
                .bind(f64::from(check_in))
                .execute(&mut *transaction)
                .await
                .map_err(refused)?;
            if steered.rows_affected() == 0 {
                transaction.rollback().await.map_err(refused)?;
                return Ok(false);
            }
            audit(&mut transaction, &record).await?;
            transaction.commit().await.map_err(refused)?;
            Ok(true)
        })
        .await
    }

    async fn waiting(&self, holder: Uuid, limit: u32) -> Result<Vec<BulkId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/bulk_waiting.sql"))
            .bind(holder)
            .bind(i64::from(limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(ids.into_iter().map(BulkId).collect())
    }

    async fn lease(&self, id: BulkId, holder: Uuid, seconds: u32) -> Result<Option<BulkJob>, StoreError> {
        let found: Option<JobRow> = sqlx::query_as(include_str!("sql/bulk_lease.sql"))
            .bind(id.0)
            .bind(holder)
            .bind(f64::from(seconds))
            .fetch_optional(&self.0.pool)
            .await
            .map_err(refused)?;
        found.map(JobRow::read).transpose()
    }

    async fn close_items(&self, id: BulkId, items: &[NotApplied]) -> Result<(), StoreError> {
        sqlx::query(include_str!("sql/bulk_close.sql"))
            .bind(id.0)
            .bind(items.iter().map(|item| item.saga.0).collect::<Vec<_>>())
            .bind(items.iter().map(|item| item.outcome.as_str()).collect::<Vec<_>>())
            .bind(items.iter().map(|item| item.code.as_str()).collect::<Vec<_>>())
            .bind(items.iter().map(|item| item.detail.as_str()).collect::<Vec<_>>())
            .execute(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(())
    }

    async fn count(&self, id: BulkId) -> Result<(), StoreError> {
        let counting = sqlx::query(include_str!("sql/bulk_count.sql")).bind(id.0);
        counting.execute(&self.0.pool).await.map_err(refused)?;
        Ok(())
    }

    async fn finish(&self, id: BulkId, check_in: u32) -> Result<bool, StoreError> {
        let finishing = sqlx::query(include_str!("sql/bulk_finish.sql")).bind(id.0).bind(f64::from(check_in));
        Ok(finishing.execute(&self.0.pool).await.map_err(refused)?.rows_affected() == 1)
    }

    async fn check(&self, id: BulkId) -> Result<Check, StoreError> {
        let now: Timestamp =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.0.pool).await.map_err(refused)?;
        let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(include_str!("sql/bulk_check.sql"))
            .bind(id.0)
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        checked(now, rows)
    }

    async fn keep_check(&self, id: BulkId, check: &Check, again_in: Option<u32>) -> Result<(), StoreError> {
        sqlx::query(include_str!("sql/bulk_keep_check.sql"))
            .bind(id.0)
            .bind(row::json(check))
            .bind(again_in.map(f64::from))
            .execute(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(())
    }
}
