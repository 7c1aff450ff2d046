-- The newest version of $1 that is not deprecated.
select max(d.version)
from definition d
where d.name = $1
    and not coalesce((
        select is_deprecated from deprecation where name = d.name and version = d.version order by id desc limit 1
    ), 0)
