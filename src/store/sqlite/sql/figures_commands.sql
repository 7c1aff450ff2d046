select o.step, o.direction, o.outcome, o.attempt, count(*)
from saga s
join outbox o on o.saga_id = s.id
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3 is null or s.created_at >= $3)
    and o.state = 'VERIFIED'
group by o.step, o.direction, o.outcome, o.attempt
order by o.step, o.direction, o.outcome, o.attempt
