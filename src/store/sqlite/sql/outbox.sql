-- $1 pending, $2 saga, $3 participant, $4 and $5 the entry to start after, $6 how many
select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps, o.step, o.step_index, o.direction, o.generation,
    o.compensates, o.participant, o.action, o.body, o.decided_at, o.decided_revision, o.outcome, o.attempt, o.output,
    o.problem, o.verified_at, o.verified_revision
from saga s
join outbox o on o.saga_id = s.id
where ($1 is null or (o.state = 'PENDING') = $1)
    and (coalesce($1, 0) = 0 or s.state in ('RUNNING', 'COMPENSATING', 'STUCK'))
    and ($2 is null or s.id = $2)
    and ($3 is null or o.participant = $3)
    and ($4 is null or s.id >= $4)
    and ($4 is null or (o.saga_id, o.seq) > ($4, $5))
order by o.saga_id, o.seq
limit $6
