//! What webhooks are still to be told.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

use super::write::audit;
use super::{SqliteStore, refused, time};
use crate::clock::after;
use crate::id::SagaId;
use crate::store::row::{json, number};
use crate::store::webhooks::{Delivery, DeliveryCounts, WebhookStore};
use crate::store::{AuditRecord, Changes, Page, StoreError};

type Columns = (Uuid, String, String, Uuid, String, i64, Option<i64>, Option<String>, i64);

/// What is to be told of this commit. `new` are the starts that are none of a key that was taken.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    changes: &Changes,
    new: &HashSet<SagaId>,
) -> Result<(), StoreError> {
    for delivery in changes.told(new) {
        sqlx::query(include_str!("sql/insert_deliveries.sql"))
            .bind(delivery.id)
            .bind(&delivery.webhook)
            .bind(&delivery.event)
            .bind(delivery.saga.0)
            .bind(&delivery.body)
            .bind(delivery.at.timestamp_micros())
            .execute(&mut *connection)
            .await
            .map_err(refused)?;
    }
    Ok(())
}

fn delivery(columns: Columns) -> Result<Delivery, StoreError> {
    let (id, webhook, event, saga, body, attempts, due, problem, at) = columns;
    let (saga, attempts, due, at) = (SagaId(saga), number(attempts)?, due.map(time).transpose()?, time(at)?);
    Ok(Delivery { id, webhook, event, saga, body, attempts, due, problem, at })
}

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn claim(&self, webhooks: &[String], lease: Duration, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let (now, webhooks) = (self.0.clock.now(), json(&webhooks));
        self.write(move |connection| {
            Box::pin(async move {
                let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/claim_deliveries.sql"))
                    .bind(webhooks)
                    .bind(now.timestamp_micros())
                    .bind(after(now, lease).timestamp_micros())
                    .bind(limit)
                    .fetch_all(connection)
                    .await
                    .map_err(refused)?;
                rows.into_iter().map(delivery).collect()
            })
        })
        .await
    }

    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let done = sqlx::query(include_str!("sql/delivered.sql")).bind(id).bind(attempts);
                done.execute(connection).await.map_err(refused)?;
                Ok(())
            })
        })
        .await
    }

    async fn failed(&self, id: Uuid, attempts: u32, problem: &str, pause: Option<Duration>) -> Result<(), StoreError> {
        let (problem, now) = (problem.to_owned(), self.0.clock.now());
        let due = pause.map(|pause| after(now, pause).timestamp_micros());
        self.write(move |connection| {
            Box::pin(async move {
                let failed = sqlx::query(include_str!("sql/delivery_failed.sql"))
                    .bind(id)
                    .bind(attempts)
                    .bind(problem)
                    .bind(due);
                failed.execute(connection).await.map_err(refused)?;
                Ok(())
            })
        })
        .await
    }

    async fn deliveries(&self, parked: Option<bool>, page: &Page<Uuid>) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/deliveries.sql"))
            .bind(page.after)
            .bind(parked)
            .bind(page.limit)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        rows.into_iter().map(delivery).collect()
    }

    async fn retry_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        let now = self.0.clock.now().timestamp_micros();
        self.see_to(include_str!("sql/retry_delivery.sql"), id, Some(now), audit).await
    }

    async fn drop_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        self.see_to(include_str!("sql/drop_delivery.sql"), id, None, audit).await
    }

    async fn delivery_counts(&self, most: u32) -> Result<DeliveryCounts, StoreError> {
        let (pending, parked): (i64, i64) = sqlx::query_as(include_str!("sql/delivery_counts.sql"))
            .bind(i64::from(most) + 1)
            .fetch_one(&self.0.readers)
            .await
            .map_err(refused)?;
        Ok(DeliveryCounts { pending: number(pending)?, parked: number(parked)? })
    }
}

impl SqliteStore {
    async fn see_to(
        &self,
        statement: &'static str,
        id: Uuid,
        now: Option<i64>,
        record: AuditRecord,
    ) -> Result<Option<Delivery>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let query = sqlx::query_as(statement).bind(id);
                let query = if now.is_some() { query.bind(now) } else { query };
                let row: Option<Columns> = query.fetch_optional(&mut *transaction).await.map_err(refused)?;
                let Some(found) = row.map(delivery).transpose()? else { return Ok(None) };
                audit(&mut transaction, &[AuditRecord { saga: Some(found.saga), ..record }]).await?;
                transaction.commit().await.map_err(refused)?;
                Ok(Some(found))
            })
        })
        .await
    }
}
