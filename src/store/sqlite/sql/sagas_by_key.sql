-- As sagas.sql, by key: with the name of each definition there is, since the index has them before the keys.
-- $1 definition, $2 states as a JSON array or null, $3 key, $4 since, $5 paused, $6 the saga to start before (17 bytes
-- of x'ff' for the newest), $7 how many
with recursive name as (
    select min(definition_name) as name from saga
    union all
    select (select min(definition_name) from saga where definition_name > name.name) from name where name.name is not null
)
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause,
    'null' as input, output, reads_outputs, signals, parent, deadline_at, created_at, updated_at, ended_at
from saga
where definition_name in (select name from name where ($1 is null or name = $1))
    and id < $6
    and ($2 is null or state in (select value from json_each($2)))
    and key = $3
    and ($4 is null or created_at >= $4)
    and ($5 is null or paused = $5)
order by id desc
limit $7
