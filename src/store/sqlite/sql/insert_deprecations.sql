insert into deprecation (name, version, is_deprecated, at, actor, reason)
select value ->> 'name', value ->> 'version', value ->> 'deprecated', value ->> 'at', value ->> 'actor',
    value ->> 'reason'
from json_each($1)
