select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps, o.step, o.step_index, o.direction, o.generation,
    o.compensates, o.participant, o.action, o.body, o.decided_at, o.decided_revision, o.outcome, o.attempt, o.output,
    o.problem, o.verified_at, o.verified_revision
from json_each($1) as wanted
join outbox o on o.saga_id = unhex(wanted.value ->> 0) and o.seq = wanted.value ->> 1
join saga s on s.id = o.saga_id
