insert into saga (
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
    input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::json, stuck::json,
    cause::json, input::json, input_hash, output::json, reads_outputs, signals::json, parent::json,
    deadline_at, due_at, created_at, updated_at, ended_at
from unnest(
    $1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::bool[], $7::int4[], $8::int4[], $9::text[],
    $10::text[], $11::text[], $12::text[], $13::bytea[], $14::text[], $15::bool[], $16::text[], $17::text[],
    $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::timestamptz[])
    as new (
        id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
        input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
where not exists (
    select from archived_key a where a.definition_name = new.definition_name and a.key = new.key)
on conflict (definition_name, key) do nothing
returning id
