-- $1 who asks, $2 how many
select id
from bulk_job
where (state = 'RUNNING' or check_due <= clock_timestamp())
    and (lease_until is null or lease_until <= clock_timestamp() or holder = $1)
order by id
limit $2
