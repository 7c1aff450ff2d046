//! Statements over many rows. Each row is bound as it is: reading a batch out of JSON took SQLite half its time.

use std::sync::{Arc, LazyLock};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::refused;
use crate::store::StoreError;

/// How many rows one execution may have, so that a batch of any size uses few different statements, each prepared once.
/// Placeholders are bounded too: 32,766 per statement.
const PORTIONS: [usize; 10] = [512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
/// What stands for the rows in a statement's text.
const MARK: &str = ":rows";

/// A statement with its text for every portion.
pub(super) struct Rows(LazyLock<[Arc<str>; PORTIONS.len()]>);

/// What a row is bound to.
pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

impl Rows {
    /// A statement of which `:rows` stands for rows of placeholders.
    pub(super) const fn new(texts: fn() -> [Arc<str>; PORTIONS.len()]) -> Self {
        Self(LazyLock::new(texts))
    }

    /// Bound to all `items`, in portions.
    pub(super) fn over<T>(
        &self,
        items: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Vec<Bound<'static>> {
        let (mut portions, mut rest) = (Vec::new(), items);
        while let Some((query, later)) = self.portion(rest, &bind) {
            portions.push(query);
            rest = later;
        }
        portions
    }

    fn portion<'t, T>(
        &self,
        items: &'t [T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Option<(Bound<'static>, &'t [T])> {
        let at = PORTIONS.iter().position(|portion| *portion <= items.len())?;
        let (now, later) = items.split_at(*PORTIONS.get(at)?);
        let query = sqlx::query(AssertSqlSafe(self.0.get(at)?.clone()));
        Some((now.iter().fold(query, bind), later))
    }
}

/// Executes all portions; returns how many rows they touched.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    portions: Vec<Bound<'static>>,
) -> Result<u64, StoreError> {
    let mut touched = 0;
    for query in portions {
        touched += query.execute(&mut *connection).await.map_err(refused)?.rows_affected();
    }
    Ok(touched)
}

/// Executes all portions; returns the rows that they give.
pub(super) async fn fetch(
    connection: &mut SqliteConnection,
    portions: Vec<Bound<'static>>,
) -> Result<Vec<SqliteRow>, StoreError> {
    let mut found = Vec::new();
    for query in portions {
        found.extend(query.fetch_all(&mut *connection).await.map_err(refused)?);
    }
    Ok(found)
}

/// The texts of a statement whose rows have so many columns.
pub(super) fn texts(sql: &str, columns: usize) -> [Arc<str>; PORTIONS.len()] {
    let row = format!("({})", vec!["?"; columns].join(","));
    PORTIONS.map(|portion| sql.replace(MARK, &vec![row.as_str(); portion].join(",")).into())
}

/// A statement in a file, whose rows have so many columns.
macro_rules! rows {
    ($file:literal, $columns:literal) => {
        $crate::store::sqlite::rows::Rows::new(|| $crate::store::sqlite::rows::texts(include_str!($file), $columns))
    };
}
pub(super) use rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_a_row_of_placeholders_per_item() {
        let texts = texts("select * from (values :rows)", 2);
        assert_eq!(&*texts[9], "select * from (values (?,?))");
        assert_eq!(&*texts[7], "select * from (values (?,?),(?,?),(?,?),(?,?))");
    }
}
