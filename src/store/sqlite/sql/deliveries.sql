select id, webhook, event, saga_id, body, attempts, due_at, problem, created_at
from webhook_delivery
where ($1 is null or id > $1) and ($2 is null or (due_at is null) = $2)
order by id
limit $3
