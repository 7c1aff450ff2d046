-- $2 the time
update bulk_job set
    applied = counted.applied,
    refused = counted.refused,
    failed = counted.failed,
    updated_at = case when state = 'RUNNING' then $2 else updated_at end
from (
    select
        count(*) filter (where outcome = 'applied') as applied,
        count(*) filter (where outcome = 'refused') as refused,
        count(*) filter (where outcome = 'failed') as failed,
        count(*) filter (where outcome is null) as left_open
    from bulk_item
    where job_id = $1
) as counted
where id = $1
