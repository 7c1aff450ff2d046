-- $1 the sagas that are asked for, $2 the time, $3 how many due ones besides those of $4
with asked as (
    select unhex(value) as id from json_each($1)
), due as (
    select id from saga
    where due_at is not null and due_at <= $2 and id not in (select unhex(value) from json_each($4))
    order by due_at
    limit $3
)
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input, output,
    reads_outputs, signals, parent, deadline_at, created_at, updated_at, ended_at
from saga
where id in (select id from asked union all select id from due)
order by id
