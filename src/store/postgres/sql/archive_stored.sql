-- Locks those of $1 that have ended, and tells how much there is of each.
select
    s.id, s.revision,
    (select count(*) from outbox where saga_id = s.id) as outbox,
    (select count(*) from history where saga_id = s.id) as history,
    (select count(*) from audit where saga_id = s.id) as audit
from saga s
where s.id = any($1) and s.state in ('COMPLETED', 'COMPENSATED', 'ABANDONED')
order by s.id
for update
