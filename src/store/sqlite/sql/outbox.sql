-- $1 'VERIFIED' or null, $2 saga, $3 participant, $4 and $5 the entry to start after (before all: x'' and 0), $6 how many
select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps, o.step, o.step_index, o.direction, o.generation,
    o.compensates, o.participant, o.action, o.body, o.decided_at, o.decided_revision, o.outcome, o.attempt, o.output,
    o.problem, o.verified_at, o.verified_revision
from outbox o
join saga s on s.id = o.saga_id
where (o.saga_id, o.seq) > ($4, $5)
    and ($1 is null or o.state = $1)
    and ($2 is null or o.saga_id = $2)
    and ($3 is null or o.participant = $3)
order by o.saga_id, o.seq
limit $6
