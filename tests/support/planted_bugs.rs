//! The table of planted bugs in `docs/planted-bugs.md`, which the tests that plant them hold it to.

const TABLE: &str = include_str!("../../docs/planted-bugs.md");

/// The bugs of one finder: those rows whose cell under `finder` has something, as the row's name and the cell.
pub fn told(finder: &str) -> Vec<(&'static str, &'static str)> {
    let rows = TABLE.lines().skip_while(|line| !line.starts_with("| bug |"));
    let mut rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().expect("the table has a head");
    let column = head.iter().position(|name| *name == finder).expect("the finder has a column");
    // After the line under the head.
    let cells = rows.skip(1).take_while(|row| row.len() == head.len());
    cells.map(|row| (row[0], row[column])).filter(|(_, cell)| !cell.is_empty()).collect()
}
