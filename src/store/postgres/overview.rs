//! What people ask of all sagas at once.

use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::refused;
use crate::clock::Timestamp;
use crate::id::{DefinitionRef, SagaId};
use crate::store::StoreError;
use crate::store::overview::{self, Lifetime, Service, StateCount, StuckGroup};
use crate::store::row;

pub(super) async fn state_counts(pool: &PgPool, most: u32) -> Result<Vec<StateCount>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(include_str!("sql/state_counts.sql"))
        .bind(i64::from(most) + 1)
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter().map(|(state, count)| Ok(StateCount { state, count: row::number(count)? })).collect()
}

pub(super) async fn stuck_groups(pool: &PgPool, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
    let rows: Vec<row::StuckRow> = sqlx::query_as(include_str!("sql/stuck_groups.sql"))
        .bind(i64::from(most))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter().map(row::stuck_group).collect()
}

pub(super) async fn lifetimes(pool: &PgPool, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
    let rows: Vec<(String, i32, String, Timestamp, Option<Timestamp>)> = sqlx::query_as(
        "select definition_name, definition_version, state, created_at, ended_at from saga
         where id >= $1 and created_at >= $2 order by id desc limit $3",
    )
    .bind(row::first_id(since))
    .bind(since)
    .bind(i64::from(most))
    .fetch_all(pool)
    .await
    .map_err(refused)?;
    let lifetime = |(name, version, state, created_at, ended_at): (String, i32, String, Timestamp, _)| {
        let definition = DefinitionRef { name, version: row::number(version)? };
        Ok(Lifetime { definition, state, created_at, ended_at })
    };
    rows.into_iter().map(lifetime).collect()
}

pub(super) async fn services(pool: &PgPool, most: u32) -> Result<Vec<Service>, StoreError> {
    let waiting: Vec<(String, i64, Timestamp)> = sqlx::query_as(include_str!("sql/services_waiting.sql"))
        .bind(i64::from(most))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    let settled: Vec<(String, String, i64)> = sqlx::query_as(include_str!("sql/services_settled.sql"))
        .bind(i64::from(most))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    let waiting = waiting.into_iter().map(|(name, count, oldest)| Ok((name, row::number(count)?, oldest)));
    let waiting = waiting.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(overview::services(waiting, row::outcomes(settled)?))
}

pub(super) async fn revisions(pool: &PgPool, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(Uuid, i32)> = sqlx::query_as("select id, revision from saga where id = any($1)")
        .bind(ids)
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter().map(|(id, revision)| Ok((SagaId(id), row::number(revision)?))).collect()
}
