-- $1 how many commands are looked at
select participant, count(*), min(decided_at)
from (
    select o.participant, o.decided_at
    from saga s indexed by saga_live
    cross join outbox o on o.saga_id = s.id
    where s.state in ('RUNNING', 'COMPENSATING', 'STUCK') and o.state = 'PENDING'
    order by s.id
    limit $1
) as oldest
group by participant
