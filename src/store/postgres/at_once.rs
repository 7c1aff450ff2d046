//! A whole unit of work as one statement, which commits by itself.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::OnceLock;

use sqlx::PgConnection;

use super::refused;
use super::write::{Starts, bind_audits, bind_commands, bind_history, bind_settled, bind_updates};
use crate::id::{CommandId, SagaId};
use crate::store::row::{SagaText, int};
use crate::store::{Changes, HistoryRecord, NewCommand, StoreError, latest};

/// What a unit of work may consist of: a name and the statement by itself, and whether it says how many rows it wrote.
const PARTS: [(&str, &str, bool); 7] = [
    ("started", include_str!("sql/insert_sagas.sql"), true),
    ("decided", include_str!("sql/insert_commands.sql"), false),
    ("updated", include_str!("sql/update_sagas.sql"), true),
    ("settled", include_str!("sql/settle_commands.sql"), true),
    ("told", include_str!("sql/insert_history.sql"), false),
    ("audited", include_str!("sql/insert_audit.sql"), false),
    ("unchanged", include_str!("sql/unchanged.sql"), true),
];

/// The statement for the parts that there are, made once: parts that have nothing to do would still be set up by the server,
/// with every constraint of their tables.
fn statement(parts: [bool; PARTS.len()]) -> &'static str {
    static STATEMENTS: [OnceLock<String>; 1 << PARTS.len()] = [const { OnceLock::new() }; 1 << PARTS.len()];
    let place = parts.iter().rev().fold(0, |place, &is_there| place << 1 | usize::from(is_there));
    STATEMENTS[place].get_or_init(|| joined(parts))
}

/// Data-modifying CTEs of one statement see the same snapshot. After the parameters of the parts come the counts: how many
/// sagas must have been inserted and updated, how many commands settled, and how many sagas must be as they were. With other counts it divides by zero, and
/// nothing of it is written.
fn joined(parts: [bool; PARTS.len()]) -> String {
    let (mut ctes, mut parameters) = (Vec::new(), 0);
    let present = || PARTS.iter().zip(parts).filter(|(_, is_there)| *is_there).map(|(part, _)| part);
    for (name, sql, is_counted) in present() {
        let (sql, most) = renumbered(sql, parameters);
        parameters += most;
        let is_silent = *is_counted && !sql.contains("returning") && !sql.starts_with("select");
        let returning = if is_silent { "\nreturning 1" } else { "" };
        ctes.push(format!("{name} as (\n{sql}{returning}\n)"));
    }
    let mut whole = String::new();
    if !ctes.is_empty() {
        whole = format!("with {}\n", ctes.join(", "));
    }
    whole.push_str("select 1 / case when true");
    for (name, ..) in present().filter(|(.., is_counted)| *is_counted) {
        parameters += 1;
        // Cannot fail: it is a string.
        let _ = write!(whole, " and (select count(*) from {name}) = ${parameters}");
    }
    whole.push_str(" then 1 else 0 end");
    whole
}

/// A statement without its comments, its parameters counted from `before` on; and how many it has.
fn renumbered(sql: &str, before: usize) -> (String, usize) {
    let code = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    let (mut text, mut most) = (String::with_capacity(code.len()), 0);
    let mut pieces = code.trim_end().split('$');
    text.extend(pieces.next());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
        let (number, rest) = piece.split_at(end);
        let number: usize = number.parse().unwrap_or_default();
        most = most.max(number);
        let _ = write!(text, "${}{rest}", before + number);
    }
    (text, most)
}

/// Writes all of it in one statement, if the sagas of `unchanged` still have those revisions. Says no, and nothing is written, when that cannot be: when a saga is not as it was
/// read, a key is taken, or a command is settled that is only now being decided. Then [`super::write::write`] finds out which.
pub(super) async fn write(
    connection: &mut PgConnection,
    changes: &Changes,
    unchanged: &[(SagaId, u32)],
) -> Result<bool, StoreError> {
    let is_plain = changes.migrations.is_empty()
        && changes.deprecations.is_empty()
        && changes.bulk.is_empty()
        && changes.webhooks.is_empty()
        && changes.starts.iter().all(|start| start.settled.is_empty());
    if !is_plain {
        return Ok(false);
    }
    let new: HashSet<CommandId> = changes.commands.iter().map(|command| command.id).collect();
    let settled = latest(changes.settled.iter());
    if settled.iter().any(|settled| new.contains(&CommandId { saga: settled.saga, seq: settled.settled.seq })) {
        return Ok(false);
    }
    let starts = Starts::of(&changes.starts);
    let commands: Vec<&NewCommand> =
        changes.starts.iter().flat_map(|start| &start.commands).chain(&changes.commands).collect();
    let texts: Vec<SagaText> = changes.updates.iter().map(|update| SagaText::of(&update.saga)).collect();
    let history: Vec<&HistoryRecord> =
        changes.starts.iter().flat_map(|start| &start.history).chain(&changes.history).collect();
    let counts = [changes.starts.len(), changes.updates.len(), settled.len(), unchanged.len()];
    let mut query = sqlx::query(statement([
        !changes.starts.is_empty(),
        !commands.is_empty(),
        !changes.updates.is_empty(),
        !settled.is_empty(),
        !history.is_empty(),
        !changes.audits.is_empty(),
        !unchanged.is_empty(),
    ]));
    if !changes.starts.is_empty() {
        query = starts.bind(query);
    }
    if !commands.is_empty() {
        query = bind_commands(query, &commands);
    }
    if !changes.updates.is_empty() {
        query = bind_updates(query, &changes.updates, &texts);
    }
    if !settled.is_empty() {
        query = bind_settled(query, &settled);
    }
    if !history.is_empty() {
        query = bind_history(query, &history);
    }
    if !changes.audits.is_empty() {
        query = bind_audits(query, &changes.audits);
    }
    if !unchanged.is_empty() {
        query = query
            .bind(unchanged.iter().map(|(saga, _)| saga.0).collect::<Vec<_>>())
            .bind(unchanged.iter().map(|(_, revision)| int(*revision)).collect::<Vec<_>>());
    }
    for count in counts.into_iter().filter(|count| *count > 0) {
        query = query.bind(i64::try_from(count).unwrap_or(i64::MAX));
    }
    match query.execute(&mut *connection).await {
        Ok(_) => Ok(true),
        // division_by_zero: as the statement says that it could not write all. unique_violation: somebody was quicker, of whom
        // nothing was seen yet: a transaction of our own, perhaps, whose connection was lost.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("22012" | "23505")) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_all_parts_are_counted_through() {
        let whole = joined([true; PARTS.len()]);
        let numbers: HashSet<usize> = whole
            .split('$')
            .skip(1)
            .map(|piece| {
                piece.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().expect("a number")
            })
            .collect();
        // 22 columns of a saga, 12 of a command, 16 of an update, 8 of an outcome, 4 of history, 6 of audit, 2 of what is
        // unchanged, 4 counts.
        assert_eq!(numbers, (1..=74).collect(), "{whole}");
        assert_eq!(whole.matches("returning").count(), 3, "{whole}");
    }

    #[test]
    fn parts_with_nothing_to_do_are_left_out() {
        let whole = joined([false, true, true, true, false, false, false]);
        assert!(whole.starts_with("with decided as (\ninsert into outbox"), "{whole}");
        assert!(whole.contains("$36") && !whole.contains("$39") && !whole.contains("insert into saga"), "{whole}");
        assert!(
            whole.ends_with(
                "(select count(*) from updated) = $37 and (select count(*) from settled) = $38 then 1 else 0 end"
            ),
            "{whole}"
        );
    }

    #[test]
    fn each_combination_has_a_statement_of_its_own() {
        let all: HashSet<&str> = (0..1 << PARTS.len())
            .map(|mask: usize| statement(std::array::from_fn(|part| mask >> part & 1 == 1)))
            .collect();
        assert_eq!(all.len(), 1 << PARTS.len());
    }
}
