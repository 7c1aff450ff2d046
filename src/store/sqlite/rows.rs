//! Statements over many rows. Each row is bound as it is: reading a batch out of JSON took SQLite half its time. They are all
//! `or fail`, which leaves the rows before a bad one written: their transaction is rolled back in any case, and SQLite need not
//! copy each page first in order to take back one statement alone.

use std::sync::{Arc, LazyLock};

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Sqlite, SqliteConnection};

use super::refused;
use crate::store::StoreError;

/// How many rows a statement has, so that a batch of any size uses few different statements, each prepared once: a batch goes
/// into the next larger one, with rows of nulls behind, which the statements pass over. Each statement is a message to SQLite's
/// thread and one back. Placeholders are bounded too: 32,766 per statement.
const SIZES: [usize; 18] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, MOST];
const MOST: usize = 512;
/// What stands for the rows in a statement's text.
const MARK: &str = ":rows";

/// A statement with its text for every size.
pub(super) struct Rows {
    columns: usize,
    texts: LazyLock<Texts>,
}

/// What a row is bound to.
pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// The texts of a statement, one for each size.
pub(super) type Texts = [Arc<str>; SIZES.len()];

impl Rows {
    /// A statement of which `:rows` stands for rows of so many placeholders.
    pub(super) const fn new(columns: usize, texts: fn() -> Texts) -> Self {
        Self { columns, texts: LazyLock::new(texts) }
    }

    /// Bound to all `items`, in portions.
    pub(super) fn over<T>(
        &self,
        items: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Vec<Bound<'static>> {
        items.chunks(MOST).filter_map(|portion| self.portion(portion, &bind)).collect()
    }

    fn portion<T>(&self, items: &[T], bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>) -> Option<Bound<'static>> {
        let at = SIZES.partition_point(|size| *size < items.len());
        let (size, text) = (SIZES.get(at)?, self.texts.get(at)?);
        let mut arguments = SqliteArguments::default();
        arguments.reserve(size * self.columns, 0);
        let query = items.iter().fold(sqlx::query_with(AssertSqlSafe(text.clone()), arguments), bind);
        let nulls = (size - items.len()) * self.columns;
        Some((0..nulls).fold(query, |query, _| query.bind(None::<i64>)))
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

/// The texts of a statement whose rows have so many columns.
pub(super) fn texts(sql: &str, columns: usize) -> Texts {
    let row = format!("({})", vec!["?"; columns].join(","));
    SIZES.map(|size| sql.replace(MARK, &vec![row.as_str(); size].join(",")).into())
}

/// A statement in a file, whose rows have so many columns.
macro_rules! rows {
    ($file:literal, $columns:literal) => {
        $crate::store::sqlite::rows::Rows::new($columns, || {
            $crate::store::sqlite::rows::texts(include_str!($file), $columns)
        })
    };
}
pub(super) use rows;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_a_row_of_placeholders_per_item() {
        let texts = texts("select * from (values :rows)", 2);
        assert_eq!(&*texts[0], "select * from (values (?,?))");
        assert_eq!(&*texts[3], "select * from (values (?,?),(?,?),(?,?),(?,?))");
    }
}
