insert into audit (at, actor, saga_id, action, reason, detail)
select at, actor, saga_id, action, reason, detail::json
from unnest($1::timestamptz[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[])
    as new (at, actor, saga_id, action, reason, detail)
