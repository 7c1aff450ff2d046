select o.step, count(distinct s.id)
from saga s
join outbox o on o.saga_id = s.id
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3::timestamptz is null or s.created_at >= $3)
    and s.state = 'COMPENSATED' and o.direction = 'action' and o.outcome in ('failure', 'unknown')
group by o.step
order by o.step
