-- Of PostgreSQL alone: SQLite writes an index of the table anew for every update that names its column, whatever its value.
select 1;
