//! Numbers over many sagas, counted by the database.

use sqlx::postgres::PgPool;

use super::refused;
use crate::clock::Timestamp;
use crate::id::DefinitionRef;
use crate::saga::Figures;
use crate::store::StoreError;
use crate::store::row::{self, int};

pub(super) async fn figures(
    pool: &PgPool,
    definition: &DefinitionRef,
    since: Option<Timestamp>,
) -> Result<Figures, StoreError> {
    let (name, version) = (&definition.name, int(definition.version));
    macro_rules! all {
        ($sql:literal, $row:ty) => {
            sqlx::query_as::<_, $row>(include_str!($sql))
                .bind(name)
                .bind(version)
                .bind(since)
                .fetch_all(pool)
                .await
                .map_err(refused)?
        };
    }
    let ended = all!("sql/figures_ended.sql", (String, i64));
    let commands = all!("sql/figures_commands.sql", (String, String, String, i32, i64));
    let latencies = all!("sql/figures_latencies.sql", (String, String, i64, Vec<i64>));
    let turned = all!("sql/figures_turned.sql", (String, i64));
    let undone = all!("sql/figures_undone.sql", (String, String, i64));
    row::figures(ended, commands, latencies, turned, undone)
}
