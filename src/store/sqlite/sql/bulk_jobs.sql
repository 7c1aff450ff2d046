-- $1 the job to start after, $2 how many
select
    id, action, step, filter, reason, actor, rate, state, total, is_bounded, applied, refused, failed,
    created_at, updated_at, ended_at, checked, check_due
from bulk_job
where $1 is null or id < $1
order by id desc
limit $2
