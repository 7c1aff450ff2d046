-- $1 the job to start after, $2 how many
select
    id, action, step, filter::text as filter, reason, actor, rate, state, total, is_bounded, applied, refused, failed,
    created_at, updated_at, ended_at, checked::text as checked, check_due
from bulk_job
where $1::uuid is null or id < $1
order by id desc
limit $2
