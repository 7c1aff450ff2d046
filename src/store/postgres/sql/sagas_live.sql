-- As sagas.sql, of states that are not final: said so, since these alone are in an index, and there are few of them.
-- $1 definition, $2 states or null, $3 key, $4 since, $5 paused, $6 the saga to start after (before all: the greatest id), $7 how many
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
    cause::text, 'null' as input, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
from saga
where state in ('RUNNING', 'COMPENSATING', 'STUCK')
    and ($1::text is null or definition_name = $1)
    and ($2::text[] is null or state = any($2))
    and ($3::text is null or key = $3)
    and ($4::timestamptz is null or created_at >= $4)
    and ($5::bool is null or paused = $5)
    and id < $6
order by id desc
limit $7
