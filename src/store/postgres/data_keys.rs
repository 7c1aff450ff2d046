//! Wrapped data keys in the database.

use async_trait::async_trait;
use uuid::Uuid;

use super::{PostgresStore, refused};
use crate::clock::Timestamp;
use crate::store::data_keys::{DataKeyStore, Purpose, WrappedKey, read};
use crate::store::{Page, StoreError};

type Columns = (Uuid, String, String, Vec<u8>, Timestamp);

#[async_trait]
impl DataKeyStore for PostgresStore {
    async fn data_keys(&self, page: &Page<Uuid>) -> Result<Vec<WrappedKey>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/data_keys.sql"))
            .bind(page.after.unwrap_or_else(Uuid::nil))
            .bind(i64::from(page.limit))
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        rows.into_iter().map(read).collect()
    }

    async fn data_key(&self, id: Uuid) -> Result<Option<WrappedKey>, StoreError> {
        let row: Option<Columns> =
            sqlx::query_as("select id, purpose, master, wrapped, created_at from data_key where id = $1")
                .bind(id)
                .fetch_optional(&self.0.pool)
                .await
                .map_err(refused)?;
        row.map(read).transpose()
    }

    async fn newest_data_key(&self, purpose: Purpose) -> Result<Option<WrappedKey>, StoreError> {
        let row: Option<Columns> = sqlx::query_as(
            "select id, purpose, master, wrapped, created_at from data_key where purpose = $1
             order by created_at desc, id desc limit 1",
        )
        .bind(purpose.as_str())
        .fetch_optional(&self.0.pool)
        .await
        .map_err(refused)?;
        row.map(read).transpose()
    }

    async fn add_data_key(&self, key: &WrappedKey) -> Result<bool, StoreError> {
        let added = sqlx::query(
            "insert into data_key (id, purpose, master, wrapped, created_at) values ($1, $2, $3, $4, $5)
             on conflict do nothing",
        )
        .bind(key.id)
        .bind(key.purpose.as_str())
        .bind(&key.master)
        .bind(&key.wrapped)
        .bind(key.created_at)
        .execute(&self.0.pool)
        .await
        .map_err(refused)?;
        Ok(added.rows_affected() == 1)
    }

    async fn rewrap_data_key(&self, from: &WrappedKey, to: &WrappedKey) -> Result<bool, StoreError> {
        let done = sqlx::query(include_str!("sql/data_key_rewrap.sql"))
            .bind(from.id)
            .bind(&from.wrapped)
            .bind(&to.master)
            .bind(&to.wrapped)
            .execute(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(done.rows_affected() == 1)
    }

    async fn data_key_counts(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("select master, count(*) from data_key group by master order by master")
                .fetch_all(&self.0.pool)
                .await
                .map_err(refused)?;
        Ok(rows.into_iter().map(|(master, count)| (master, count.unsigned_abs())).collect())
    }
}
