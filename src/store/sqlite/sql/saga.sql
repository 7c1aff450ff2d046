select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input, output,
    reads_outputs, signals, parent, deadline_at, created_at, updated_at, ended_at
from saga
where id = $1
