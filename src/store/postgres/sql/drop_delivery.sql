delete from webhook_delivery
where id = $1
returning id, webhook, event, saga_id, body, attempts, due_at, problem, created_at
