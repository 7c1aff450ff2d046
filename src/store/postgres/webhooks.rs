//! What webhooks are still to be told.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::write::insert_audit;
use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::store::row::{int, number};
use crate::store::task::to_the_end;
use crate::store::webhooks::{Delivery, DeliveryCounts, NewDelivery, WebhookStore};
use crate::store::{AuditRecord, Changes, Page, StoreError};

type Columns = (Uuid, String, String, Uuid, String, i32, Option<Timestamp>, Option<String>, Timestamp);

/// What is to be told of this commit. `new` are the starts that are none of a key that was taken.
pub(super) async fn insert(
    connection: &mut PgConnection,
    changes: &Changes,
    new: &HashSet<SagaId>,
) -> Result<(), StoreError> {
    if changes.webhooks.is_empty() {
        return Ok(());
    }
    let deliveries: Vec<&NewDelivery> = changes.told(new).collect();
    sqlx::query(include_str!("sql/insert_deliveries.sql"))
        .bind(deliveries.iter().map(|of| of.id).collect::<Vec<_>>())
        .bind(deliveries.iter().map(|of| of.webhook.as_str()).collect::<Vec<_>>())
        .bind(deliveries.iter().map(|of| of.event.as_str()).collect::<Vec<_>>())
        .bind(deliveries.iter().map(|of| of.saga.0).collect::<Vec<_>>())
        .bind(deliveries.iter().map(|of| of.body.as_str()).collect::<Vec<_>>())
        .bind(deliveries.iter().map(|of| of.at).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

fn delivery(columns: Columns) -> Result<Delivery, StoreError> {
    let (id, webhook, event, saga, body, attempts, due, problem, at) = columns;
    let (saga, attempts) = (SagaId(saga), number(attempts)?);
    Ok(Delivery { id, webhook, event, saga, body, attempts, due, problem, at })
}

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn claim(&self, webhooks: &[String], lease: Duration, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/claim_deliveries.sql"))
            .bind(webhooks)
            .bind(lease.as_secs_f64())
            .bind(i64::from(limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(delivery).collect()
    }

    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), StoreError> {
        let done = sqlx::query(include_str!("sql/delivered.sql")).bind(id).bind(int(attempts));
        done.execute(&self.0.pool).await.map_err(refused)?;
        Ok(())
    }

    async fn failed(&self, id: Uuid, attempts: u32, problem: &str, pause: Option<Duration>) -> Result<(), StoreError> {
        let failed = sqlx::query(include_str!("sql/delivery_failed.sql"))
            .bind(id)
            .bind(int(attempts))
            .bind(problem)
            .bind(pause.map(|pause| pause.as_secs_f64()));
        failed.execute(&self.0.pool).await.map_err(refused)?;
        Ok(())
    }

    async fn deliveries(&self, parked: Option<bool>, page: &Page<Uuid>) -> Result<Vec<Delivery>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/deliveries.sql"))
            .bind(page.after)
            .bind(parked)
            .bind(i64::from(page.limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(delivery).collect()
    }

    async fn retry_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        self.see_to(include_str!("sql/retry_delivery.sql"), id, audit).await
    }

    async fn drop_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        self.see_to(include_str!("sql/drop_delivery.sql"), id, audit).await
    }

    async fn delivery_counts(&self, most: u32) -> Result<DeliveryCounts, StoreError> {
        let (pending, parked): (i64, i64) = sqlx::query_as(include_str!("sql/delivery_counts.sql"))
            .bind(i64::from(most) + 1)
            .fetch_one(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(DeliveryCounts { pending: number(pending)?, parked: number(parked)? })
    }
}

impl PostgresStore {
    async fn see_to(
        &self,
        statement: &'static str,
        id: Uuid,
        audit: AuditRecord,
    ) -> Result<Option<Delivery>, StoreError> {
        let store = self.clone();
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let row: Option<Columns> =
                sqlx::query_as(statement).bind(id).fetch_optional(&mut *transaction).await.map_err(refused)?;
            let Some(found) = row.map(delivery).transpose()? else { return Ok(None) };
            insert_audit(&mut transaction, &[AuditRecord { saga: Some(found.saga), ..audit }]).await?;
            transaction.commit().await.map_err(refused)?;
            Ok(Some(found))
        })
        .await
    }
}
