insert into audit (at, actor, saga_id, action, reason, detail)
select value ->> 'at', value ->> 'actor', unhex(value ->> 'saga'), value ->> 'action', value ->> 'reason', value ->> 'detail'
from json_each($1)
