-- $1 definition, $2 states or null, $3 key, $4 since, $5 paused, $6 the saga to start after, $7 how many,
-- $8 version, $9 until; and looked for among the newest $14 of these: $10 a step's status, $11 an error's type,
-- $12 the step that it is stuck at, $13 the path of a field of the input, $15 its value
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
    cause::text, 'null' as input, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
from (
    select *
    from saga
    where ($1::text is null or definition_name = $1)
        and ($2::text[] is null or state = any($2))
        and ($3::text is null or key = $3)
        and ($4::timestamptz is null or created_at >= $4)
        and ($5::bool is null or paused = $5)
        and ($6::uuid is null or id < $6)
        and ($8::int4 is null or definition_version = $8)
        and ($9::timestamptz is null or created_at < $9)
    order by id desc
    limit $14
) as newest
where ($10::text is null or exists (select 1 from json_array_elements(steps) as step where step->>'s' = $10))
    and ($11::text is null or stuck->'problem'->>'type' = $11 or cause->>'type' = $11)
    and ($12::int4 is null or (stuck->>'step')::int4 = $12)
    and ($13::text[] is null or input #>> $13 = $15)
order by id desc
limit $7
