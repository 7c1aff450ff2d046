insert into webhook_delivery (id, webhook, event, saga_id, body, state, attempts, due_at, created_at)
values ($1, $2, $3, $4, $5, 'PENDING', 0, $6, $6)
on conflict (id) do nothing
