-- $1 who asks, $2 how many, $3 the time
select id
from bulk_job
where (state = 'RUNNING' or check_due <= $3)
    and (lease_until is null or lease_until <= $3 or holder = $1)
order by id
limit $2
