-- $1 the name, or null for all.
select d.name, d.version, d.hash, d.source, d.registered_at, d.registered_by, l.at, l.actor, l.reason
from definition d
left join deprecation l on l.is_deprecated
    and l.id = (select max(id) from deprecation where name = d.name and version = d.version)
where $1 is null or d.name = $1
order by d.name, d.version
