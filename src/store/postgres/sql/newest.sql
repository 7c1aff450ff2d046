-- The newest version of each name in $1 that is not deprecated.
select d.name, max(d.version)
from definition d
where d.name = any($1)
    and not coalesce((
        select is_deprecated from deprecation where name = d.name and version = d.version order by id desc limit 1
    ), false)
group by d.name
