-- $1 the job, $2 after how many seconds its sagas are looked at
update bulk_job set
    state = 'DONE',
    applied = counted.applied,
    refused = counted.refused,
    failed = counted.failed,
    updated_at = clock_timestamp(),
    ended_at = clock_timestamp(),
    check_due = clock_timestamp() + $2::float8 * interval '1 second',
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
