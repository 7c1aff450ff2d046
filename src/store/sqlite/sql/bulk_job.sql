select
    id, action, step, filter, reason, actor, rate, state, total, is_bounded, applied, refused, failed,
    created_at, updated_at, ended_at, checked, check_due
from bulk_job
where id = $1
