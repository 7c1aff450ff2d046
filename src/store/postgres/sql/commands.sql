select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps::text, o.step, o.step_index, o.direction,
    o.generation, o.compensates, o.participant, o.action, o.body::text, o.decided_at, o.decided_revision, o.outcome,
    o.attempt, o.output::text, o.problem::text, o.verified_at, o.verified_revision
from unnest($1::uuid[], $2::int4[]) as wanted (saga_id, seq)
join outbox o on o.saga_id = wanted.saga_id and o.seq = wanted.seq
join saga s on s.id = o.saga_id
