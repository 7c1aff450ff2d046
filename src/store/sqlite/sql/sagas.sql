-- $1 definition, $2 states as a JSON array or null, $3 key, $4 since, $5 paused, $6 the saga to start before (17 bytes
-- of x'ff' for the newest), $7 how many, $8 version, $9 until; and looked for among the newest $14 of these: $10 a step's
-- status, $11 an error's type, $12 the step that it is stuck at, $13 the path of a field of the input, $15 its value
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause,
    'null' as input, output, reads_outputs, signals, parent, deadline_at, created_at, updated_at, ended_at
from (
    select *
    from saga
    where id < $6
        and ($1 is null or definition_name = $1)
        and ($2 is null or state in (select value from json_each($2)))
        and ($3 is null or key = $3)
        and ($4 is null or created_at >= $4)
        and ($5 is null or paused = $5)
        and ($8 is null or definition_version = $8)
        and ($9 is null or created_at < $9)
    order by id desc
    limit $14
) as newest
where ($10 is null or exists (select 1 from json_each(steps) as step where step.value->>'$.s' = $10))
    and ($11 is null or stuck->>'$.problem.type' = $11 or cause->>'$.type' = $11)
    and ($12 is null or stuck->>'$.step' = $12)
    and ($13 is null or $15 = case json_type(input, $13)
        when 'true' then 'true'
        when 'false' then 'false'
        when 'null' then null
        when 'text' then input->>$13
        else input->$13
    end)
order by id desc
limit $7
