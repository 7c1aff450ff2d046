-- $1 how many stuck sagas are looked at
select
    definition_name, definition_version, stuck->>'$.step' as step, stuck->>'$.direction' as direction,
    stuck->>'$.problem.type' as error, count(*) as many, min(stuck->>'$.since') as since
from (
    select definition_name, definition_version, stuck
    from saga indexed by saga_live
    where state in ('RUNNING', 'COMPENSATING', 'STUCK') and state = 'STUCK'
    order by id desc
    limit $1
) as newest
group by 1, 2, 3, 4, 5
order by many desc, since
