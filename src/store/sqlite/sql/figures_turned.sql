-- Not those that turned round for another reason than a step: see CAUSES_OF_THEIR_OWN.
select o.step, count(distinct s.id)
from saga s
join outbox o on o.saga_id = s.id
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3 is null or s.created_at >= $3)
    and s.state = 'COMPENSATED'
    and coalesce(s.cause ->> 'type', '') not in ('cancelled', 'compensated-by-operator', 'saga-timeout')
    and o.direction = 'action' and o.outcome in ('failure', 'unknown')
group by o.step
order by o.step
