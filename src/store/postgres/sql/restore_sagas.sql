-- Not `select *`: a column that is generated takes no value.
insert into saga (
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
    input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
    input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at
from json_populate_recordset(null::saga, $1::json)
