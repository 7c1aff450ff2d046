//! Numbers over many sagas, counted by the database.

use sqlx::sqlite::SqlitePool;

use super::refused;
use crate::clock::Timestamp;
use crate::id::DefinitionRef;
use crate::saga::Figures;
use crate::store::StoreError;
use crate::store::row;

pub(super) async fn figures(
    pool: &SqlitePool,
    definition: &DefinitionRef,
    since: Option<Timestamp>,
) -> Result<Figures, StoreError> {
    macro_rules! all {
        ($sql:literal, $row:ty) => {
            sqlx::query_as::<_, $row>(include_str!($sql))
                .bind(&definition.name)
                .bind(definition.version)
                .bind(since.map(|since| since.timestamp_micros()))
                .fetch_all(pool)
                .await
                .map_err(refused)?
        };
    }
    let ended = all!("sql/figures_ended.sql", (String, i64));
    let commands = all!("sql/figures_commands.sql", (String, String, String, i32, i64));
    let latencies = all!("sql/figures_latencies.sql", (String, String, i64, i64, i64, i64, i64, i64, i64, i64));
    let latencies = latencies
        .into_iter()
        .map(|(step, direction, count, a, b, c, d, e, f, longest)| {
            (step, direction, count, vec![a, b, c, d, e, f, longest])
        })
        .collect();
    let turned = all!("sql/figures_turned.sql", (String, i64));
    let undone = all!("sql/figures_undone.sql", (String, String, i64));
    row::figures(ended, commands, latencies, turned, undone)
}
