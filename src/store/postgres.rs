//! State in PostgreSQL.
