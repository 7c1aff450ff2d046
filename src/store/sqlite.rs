//! State in SQLite.
