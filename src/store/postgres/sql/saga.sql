select
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps::text, stuck::text,
    cause::text, input::text, output::text, reads_outputs, signals::text, parent::text, deadline_at, created_at, updated_at, ended_at
from saga
where id = $1
