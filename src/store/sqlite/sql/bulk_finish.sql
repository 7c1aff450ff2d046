-- $1 the job, $2 the time, $3 when its sagas are looked at
update bulk_job set
    state = 'DONE',
    applied = counted.applied,
    refused = counted.refused,
    failed = counted.failed,
    updated_at = $2,
    ended_at = $2,
    check_due = $3,
    holder = null,
    lease_until = null
from (
    select
        count(*) filter (where outcome = 'applied') as applied,
        count(*) filter (where outcome = 'refused') as refused,
        count(*) filter (where outcome = 'failed') as failed,
        count(*) filter (where outcome is null) as left_open
    from bulk_item
    where job_id = $1
) as counted
where id = $1 and state = 'RUNNING' and left_open = 0
