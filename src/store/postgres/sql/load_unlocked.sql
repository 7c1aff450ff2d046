-- $1 the wanted sagas. One row at least, with the time, even when nothing is found; the time is read after the rows are.
select
    clock_timestamp(), id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text,
    stuck::text, cause::text, input::text, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at,
    updated_at, ended_at
from (values (1)) as one
left join saga on id = any($1)
order by id
