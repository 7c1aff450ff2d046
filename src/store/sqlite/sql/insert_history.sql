insert into history (saga_id, revision, at, event)
select unhex(value ->> 'saga'), value ->> 'revision', value ->> 'at', value ->> 'event'
from json_each($1)
