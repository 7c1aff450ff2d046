-- Not those that turned round for another reason than a step: see CAUSES_OF_THEIR_OWN.
select bad.step, undo.step, count(distinct s.id)
from saga s
join outbox bad on bad.saga_id = s.id
join outbox undo on undo.saga_id = s.id and undo.step <> bad.step
where s.definition_name = $1 and s.definition_version = $2 and s.ended_at is not null
    and ($3::timestamptz is null or s.created_at >= $3)
    and s.state = 'COMPENSATED'
    and coalesce(s.cause ->> 'type', '') not in ('cancelled', 'compensated-by-operator', 'saga-timeout')
    and bad.direction = 'action' and bad.outcome in ('failure', 'unknown')
    and undo.direction = 'compensation'
group by bad.step, undo.step
order by bad.step, undo.step
