//! What people ask of all sagas at once.

use sqlx::sqlite::SqlitePool;

use super::{refused, time};
use crate::clock::Timestamp;
use crate::id::{DefinitionRef, SagaId};
use crate::store::StoreError;
use crate::store::overview::{self, Lifetime, Service, StateCount, StuckGroup};
use crate::store::row;

pub(super) async fn state_counts(pool: &SqlitePool, most: u32) -> Result<Vec<StateCount>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(include_str!("sql/state_counts.sql"))
        .bind(i64::from(most) + 1)
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter().map(|(state, count)| Ok(StateCount { state, count: row::number(count)? })).collect()
}

pub(super) async fn stuck_groups(pool: &SqlitePool, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
    let rows: Vec<row::StuckRow> =
        sqlx::query_as(include_str!("sql/stuck_groups.sql")).bind(most).fetch_all(pool).await.map_err(refused)?;
    rows.into_iter().map(row::stuck_group).collect()
}

pub(super) async fn lifetimes(pool: &SqlitePool, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
    let rows: Vec<(String, u32, String, i64, Option<i64>)> = sqlx::query_as(
        "select definition_name, definition_version, state, created_at, ended_at from saga
         where id >= $1 and created_at >= $2 order by id desc limit $3",
    )
    .bind(row::first_id(since))
    .bind(since.timestamp_micros())
    .bind(most)
    .fetch_all(pool)
    .await
    .map_err(refused)?;
    rows.into_iter()
        .map(|(name, version, state, created, ended)| {
            let definition = DefinitionRef { name, version };
            let (created_at, ended_at) = (time(created)?, ended.map(time).transpose()?);
            Ok(Lifetime { definition, state, created_at, ended_at })
        })
        .collect()
}

pub(super) async fn services(pool: &SqlitePool, most: u32) -> Result<Vec<Service>, StoreError> {
    let waiting: Vec<(String, i64, i64)> =
        sqlx::query_as(include_str!("sql/services_waiting.sql")).bind(most).fetch_all(pool).await.map_err(refused)?;
    let settled: Vec<(String, String, i64)> =
        sqlx::query_as(include_str!("sql/services_settled.sql")).bind(most).fetch_all(pool).await.map_err(refused)?;
    let waiting = waiting.into_iter().map(|(name, count, oldest)| Ok((name, row::number(count)?, time(oldest)?)));
    let waiting = waiting.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(overview::services(waiting, row::outcomes(settled)?))
}

pub(super) async fn revisions(pool: &SqlitePool, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let revision: Option<u32> = sqlx::query_scalar("select revision from saga where id = $1")
            .bind(id.0)
            .fetch_optional(pool)
            .await
            .map_err(refused)?;
        found.extend(revision.map(|revision| (SagaId(id.0), revision)));
    }
    Ok(found)
}
