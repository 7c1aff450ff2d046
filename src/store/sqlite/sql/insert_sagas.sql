insert into saga (
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
    input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
select
    unhex(value ->> 'id'), value ->> 'definition', value ->> 'version', value ->> 'key', value ->> 'state',
    value ->> 'paused', value ->> 'revision', value ->> 'seq', value ->> 'steps', value ->> 'stuck', value ->> 'cause',
    value ->> 'input', unhex(value ->> 'hash'), value ->> 'output', value ->> 'reads', value ->> 'signals',
    value ->> 'parent', value ->> 'deadline',
    value ->> 'due', value ->> 'created', value ->> 'updated', value ->> 'ended'
from json_each($1)
where true
on conflict (definition_name, key) do nothing
returning id
