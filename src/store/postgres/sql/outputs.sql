-- Later commands of a step come later: theirs is the output that stays.
select saga_id, step_index, output::text
from outbox
where saga_id = any($1) and direction = 'action' and output is not null
order by saga_id, seq
