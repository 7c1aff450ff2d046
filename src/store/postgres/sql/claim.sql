-- Those that another transaction holds are being looked after.
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
    cause::text, input::text, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
from saga
where due_at is not null and due_at <= clock_timestamp() and id <> all($1)
order by due_at
limit $2
for update skip locked
