-- $1 saga, $2 participant, $3 VERIFIED or null, $4 and $5 the entry to start after, $6 how many
select
    o.saga_id, o.seq, s.definition_name, s.definition_version, s.steps::text, o.step, o.step_index, o.direction,
    o.generation, o.compensates, o.participant, o.action, o.body::text, o.decided_at, o.decided_revision, o.outcome,
    o.attempt, o.output::text, o.problem::text, o.verified_at, o.verified_revision
from outbox o
join saga s on s.id = o.saga_id
where ($1::uuid is null or o.saga_id = $1)
    and ($2::text is null or o.participant = $2)
    and ($3::text is null or o.state = $3)
    and ($4::uuid is null or (o.saga_id, o.seq) > ($4, $5::int4))
order by o.saga_id, o.seq
limit $6
