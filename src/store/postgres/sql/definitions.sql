-- $1 the name, or null for all.
select d.name, d.version, d.hash, d.source, d.registered_at, d.registered_by, l.at, l.actor, l.reason
from definition d
left join lateral (
    select is_deprecated, at, actor, reason
    from deprecation
    where name = d.name and version = d.version
    order by id desc
    limit 1
) l on l.is_deprecated
where $1::text is null or d.name = $1
order by d.name, d.version
