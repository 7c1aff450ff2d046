-- $1 how many commands are looked at
select participant, outcome, count(*)
from (
    select participant, outcome from outbox where outcome is not null order by saga_id desc, seq desc limit $1
) as newest
group by participant, outcome
