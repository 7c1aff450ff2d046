update webhook_delivery set state = 'PENDING', attempts = 0, due_at = $2
where id = $1
returning id, webhook, event, saga_id, body, attempts, due_at, problem, created_at
