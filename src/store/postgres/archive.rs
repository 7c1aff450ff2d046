//! Finished sagas out of the database, and back.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::failpoint::{self, Point};
use crate::id::SagaId;
use crate::store::archive::{
    ArchiveStore, ArchivedKey, ArchivedSaga, Family, Removed, Restored, Row, Stored, removable,
};
use crate::store::task::to_the_end;
use crate::store::{StoreError, row};

#[async_trait]
impl ArchiveStore for PostgresStore {
    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError> {
        let taken = sqlx::query(include_str!("sql/archive_lease.sql")).bind(holder).bind(f64::from(seconds));
        Ok(taken.execute(&self.0.pool).await.map_err(refused)?.rows_affected() == 1)
    }

    async fn archivable(
        &self,
        cutoff: Timestamp,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<SagaId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/archivable.sql"))
            .bind(cutoff)
            .bind(after.map_or(Uuid::nil(), |after| after.0))
            .bind(SagaId::first_at(cutoff.timestamp_millis()).0)
            .bind(i64::from(limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(ids.into_iter().map(SagaId).collect())
    }

    async fn families(&self, roots: &[SagaId], cutoff: Timestamp) -> Result<Vec<Family>, StoreError> {
        let rows: Vec<(Uuid, String)> = sqlx::query_as(include_str!("sql/families.sql"))
            .bind(roots.iter().map(|id| id.0).collect::<Vec<_>>())
            .bind(cutoff)
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        let mut families: Vec<(Uuid, Family)> = Vec::new();
        for (root, text) in rows {
            let saga: ArchivedSaga =
                serde_json::from_str(&text).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            match families.last_mut() {
                Some((last, family)) if *last == root => family.sagas.push(saga),
                _ => families.push((root, Family { sagas: vec![saga] })),
            }
        }
        Ok(families.into_iter().map(|(_, family)| family).collect())
    }

    async fn remove(&self, families: &[Family]) -> Result<Removed, StoreError> {
        let (store, families) = (self.clone(), families.to_vec());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let removed = remove(&mut transaction, &families).await?;
            failpoint::reached(Point::ArchiveBeforeRemoval);
            transaction.commit().await.map_err(refused)?;
            Ok(removed)
        })
        .await
    }

    async fn restore(&self, families: &[Family], dry: bool) -> Result<Restored, StoreError> {
        let (store, families) = (self.clone(), families.to_vec());
        to_the_end(async move {
            let mut connection = store.0.pool.acquire().await.map_err(refused)?;
            let mut transaction = connection.begin().await.map_err(refused)?;
            let mut all = Restored::default();
            for family in &families {
                restore(&mut transaction, family, dry, &mut all).await?;
            }
            transaction.commit().await.map_err(refused)?;
            Ok(all)
        })
        .await
    }

    async fn archived(&self, id: SagaId) -> Result<Option<ArchivedKey>, StoreError> {
        type Columns = (String, String, Uuid, i32, String, Timestamp, Timestamp, Timestamp);
        let found: Option<Columns> = sqlx::query_as(
            "select definition_name, key, saga_id, definition_version, state, created_at, ended_at, archived_at
             from archived_key where saga_id = $1",
        )
        .bind(id.0)
        .fetch_optional(&self.0.pool)
        .await
        .map_err(refused)?;
        let read = |(definition, key, id, version, state, created_at, ended_at, archived_at)| {
            let version = row::number::<i32, u32>(version)?;
            Ok(ArchivedKey { definition, key, id: SagaId(id), version, state, created_at, ended_at, archived_at })
        };
        found.map(read).transpose()
    }

    async fn forget_keys(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let forgotten = sqlx::query(
            "delete from archived_key where (definition_name, key) in (
                 select definition_name, key from archived_key where ended_at < $1 limit $2)",
        )
        .bind(before)
        .bind(i64::from(limit));
        Ok(forgotten.execute(&self.0.pool).await.map_err(refused)?.rows_affected())
    }

    async fn forget_jobs(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "with forgotten as (
                 delete from bulk_job where id in (
                     select id from bulk_job where ended_at < $1 and check_due is null order by id limit $2)
                 returning id
             ), items as (
                 delete from bulk_item where job_id in (select id from forgotten)
             )
             select count(*) from forgotten",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_one(&self.0.pool)
        .await
        .map_err(refused)?;
        row::number(count)
    }
}

async fn remove(connection: &mut PgConnection, families: &[Family]) -> Result<Removed, StoreError> {
    let all: Vec<Uuid> = heads(families)?;
    let stored: Vec<Stored> = sqlx::query_as(include_str!("sql/archive_stored.sql"))
        .bind(&all)
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let (ids, removed) = removable(families, stored)?;
    for sql in [
        "insert into archived_key (definition_name, key, saga_id, definition_version, state, input_hash, created_at, ended_at, archived_at)
         select definition_name, key, id, definition_version, state, input_hash, created_at, ended_at, clock_timestamp()
         from saga where id = any($1) and key is not null",
        "delete from outbox where saga_id = any($1)",
        "delete from history where saga_id = any($1)",
        "delete from audit where saga_id = any($1)",
        "delete from saga where id = any($1)",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await.map_err(refused)?;
    }
    Ok(removed)
}

async fn restore(
    connection: &mut PgConnection,
    family: &Family,
    dry: bool,
    all: &mut Restored,
) -> Result<(), StoreError> {
    let count = family.sagas.len() as u64;
    let ids = heads(std::slice::from_ref(family))?;
    let is_there: bool = sqlx::query_scalar("select exists (select from saga where id = any($1))")
        .bind(&ids)
        .fetch_one(&mut *connection)
        .await
        .map_err(refused)?;
    if is_there {
        all.present += count;
        return Ok(());
    }
    let rows = |of: fn(&ArchivedSaga) -> &[Row]| row::json(&family.sagas.iter().flat_map(of).collect::<Vec<_>>());
    let sagas = rows(|saga| std::slice::from_ref(&saga.saga));
    let is_taken: bool = sqlx::query_scalar(include_str!("sql/restore_taken.sql"))
        .bind(&sagas)
        .fetch_one(&mut *connection)
        .await
        .map_err(refused)?;
    if is_taken {
        all.key_taken += count;
        return Ok(());
    }
    all.restored += count;
    if dry {
        return Ok(());
    }
    let forget = sqlx::query(
        "delete from archived_key where saga_id = any($2) and (definition_name, key) in
        (select definition_name, key from json_populate_recordset(null::saga, $1::json))",
    );
    forget.bind(&sagas).bind(&ids).execute(&mut *connection).await.map_err(refused)?;
    for (sql, rows) in [
        (include_str!("sql/restore_sagas.sql"), sagas),
        ("insert into outbox select * from json_populate_recordset(null::outbox, $1::json)", rows(|saga| &saga.outbox)),
        ("insert into history select * from json_populate_recordset(null::history, $1::json)", rows(|saga| &saga.history)),
        // Numbered anew: the numbers are of the store that gave them.
        ("insert into audit (at, actor, saga_id, action, reason, detail)
          select at, actor, saga_id, action, reason, detail from json_populate_recordset(null::audit, $1::json) order by id",
         rows(|saga| &saga.audit)),
    ] {
        sqlx::query(sql).bind(rows).execute(&mut *connection).await.map_err(refused)?;
    }
    Ok(())
}

fn heads(families: &[Family]) -> Result<Vec<Uuid>, StoreError> {
    families.iter().flat_map(|family| &family.sagas).map(|saga| Ok(saga.head()?.id.0)).collect()
}
