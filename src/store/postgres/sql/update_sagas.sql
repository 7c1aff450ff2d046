update saga set
    state = new.state,
    paused = new.paused,
    revision = new.revision,
    next_seq = new.next_seq,
    steps = new.steps::json,
    stuck = new.stuck::json,
    cause = new.cause::json,
    output = new.output::json,
    signals = new.signals::json,
    parent = new.parent::json,
    deadline_at = new.deadline_at,
    due_at = new.due_at,
    updated_at = new.updated_at,
    ended_at = new.ended_at
from unnest(
    $1::uuid[], $2::int4[], $3::text[], $4::bool[], $5::int4[], $6::int4[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
    $16::timestamptz[])
    as new (
        id, from_revision, state, paused, revision, next_seq, steps, stuck, cause, output, signals, parent,
        deadline_at, due_at, updated_at, ended_at)
where saga.id = new.id
    and saga.revision = new.from_revision
    and saga.revision < new.revision
    -- Not the state as it is: that would let the index of all live sagas serve, read as a whole.
    and saga.state || '' in ('RUNNING', 'COMPENSATING', 'STUCK')
