-- As outbox.sql, but from the live sagas: an entry that is PENDING belongs to one.
-- $1 saga, $2 participant, $3 and $4 the entry to start after (before all: the least id and 0), $5 how many
select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps::text, o.step, o.step_index, o.direction,
    o.generation, o.compensates, o.participant, o.action, o.body::text, o.decided_at, o.decided_revision, o.outcome,
    o.attempt, o.output::text, o.problem::text, o.verified_at, o.verified_revision
from saga s
join outbox o on o.saga_id = s.id
where s.state in ('RUNNING', 'COMPENSATING', 'STUCK')
    and o.state = 'PENDING'
    and ($1::uuid is null or s.id = $1)
    and ($2::text is null or o.participant = $2)
    and s.id >= $3
    and (o.saga_id, o.seq) > ($3, $4::int4)
order by s.id, o.seq
limit $5
