insert into webhook_delivery (id, webhook, event, saga_id, body, state, attempts, due_at, created_at)
select id, webhook, event, saga_id, body, 'PENDING', 0, at, at
from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::timestamptz[])
    as new (id, webhook, event, saga_id, body, at)
on conflict (id) do nothing
