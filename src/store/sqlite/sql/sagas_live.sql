-- As sagas.sql, of states that are not final, which alone are in an index.
-- $1 definition, $2 states as a JSON array or null, $3 key, $4 since, $5 paused, $6 the saga to start before (17 bytes
-- of x'ff' for the newest), $7 how many
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause,
    'null' as input, output, reads_outputs, signals, parent, deadline_at, created_at, updated_at, ended_at
from saga
where id < $6
    and state in ('RUNNING', 'COMPENSATING', 'STUCK')
    and ($1 is null or definition_name = $1)
    and ($2 is null or state in (select value from json_each($2)))
    and ($3 is null or key = $3)
    and ($4 is null or created_at >= $4)
    and ($5 is null or paused = $5)
order by id desc
limit $7
