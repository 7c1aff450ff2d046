-- $1 the wanted sagas, $2 how many due ones besides them. One row at least, with the time, even when nothing is found.
with wanted as materialized (
    select
        id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
        cause::text, input::text, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
    from saga
    where id = any($1)
    order by id
    for update
), due as materialized (
    -- Those that another transaction holds are being looked after. Not clock_timestamp(): no index can serve that.
    -- Of the slot that is under way, most are not due yet.
    select
        id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
        cause::text, input::text, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
    from saga
    where due_slot is not null
        and due_slot <= floor(date_part('epoch', statement_timestamp()) / 8)::bigint
        and due_at <= statement_timestamp() and id <> all($1)
    order by due_slot
    limit $2
    for update skip locked
), held as materialized (
    select * from wanted union all select * from due
), moment as (
    -- An aggregate gives its row when it has read all of them, so this is the time once every lock is held.
    select clock_timestamp() as now, count(*) as held from held
)
select moment.now, held.*
from moment
left join held on true
order by held.id
