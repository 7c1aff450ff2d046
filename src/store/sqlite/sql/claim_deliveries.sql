-- $1 the webhooks as a JSON array, $2 now, $3 when it counts as lost, $4 how many.
update webhook_delivery
set attempts = attempts + 1, due_at = $3
where id in (
    select id
    from webhook_delivery
    where due_at <= $2 and webhook in (select value from json_each($1))
    order by due_at
    limit $4)
returning id, webhook, event, saga_id, body, attempts, due_at, problem, created_at
