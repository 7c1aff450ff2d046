-- As outbox.sql, but from the live sagas, which are indexed: an entry that is PENDING belongs to one.
-- $1 saga, $2 participant, $3 and $4 the entry to start after (before all: x'' and 0), $5 how many
select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps, o.step, o.step_index, o.direction, o.generation,
    o.compensates, o.participant, o.action, o.body, o.decided_at, o.decided_revision, o.outcome, o.attempt, o.output,
    o.problem, o.verified_at, o.verified_revision
from saga s indexed by saga_live
cross join outbox o on o.saga_id = s.id
where s.state in ('RUNNING', 'COMPENSATING', 'STUCK')
    and s.id >= $3
    and (o.saga_id, o.seq) > ($3, $4)
    and o.state = 'PENDING'
    and ($1 is null or s.id = $1)
    and ($2 is null or o.participant = $2)
order by s.id, o.seq
limit $5
