//! One suite for every store: what a caller may rely on holds in memory, on SQLite and on PostgreSQL alike. What only
//! one of them can get wrong is in the module of its name.

mod ahead;
mod archive;
mod bulk;
mod commits;
mod definitions;
mod due;
mod figures;
mod lists;
mod make;
mod overview;
mod pauses;
mod postgres;
mod reading;
mod remembered;
mod rig;
mod rows_read;
mod schema;
mod sealed;
mod sqlite;
mod starts;
mod tokens;
mod versions;
mod webhooks;
