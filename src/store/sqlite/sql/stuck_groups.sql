-- $1 how many stuck sagas are looked at
select
    definition_name, definition_version, stuck->>'$.step' as step, stuck->>'$.direction' as direction,
    stuck->>'$.problem.type' as error, count(*) as many, min(stuck->>'$.since') as since
from (
    select definition_name, definition_version, stuck from saga where state = 'STUCK' order by id desc limit $1
) as newest
group by 1, 2, 3, 4, 5
order by many desc, since
