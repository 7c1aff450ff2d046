insert into history (saga_id, revision, at, event)
select saga_id, revision, at, event::json
from unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::text[]) as new (saga_id, revision, at, event)
