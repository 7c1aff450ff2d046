select
    saga.state,
    case when saga.state = 'STUCK' then coalesce(saga.stuck ->> '$.problem.type', '') end as error,
    count(*)
from bulk_item
join saga on saga.id = bulk_item.saga_id
where job_id = $1 and outcome is not null and +saga.state in ('RUNNING', 'COMPENSATING', 'STUCK')
group by 1, 2
