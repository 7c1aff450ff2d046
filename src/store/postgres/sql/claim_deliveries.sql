-- $1 the webhooks, $2 for how many seconds, $3 how many.
update webhook_delivery as d
set attempts = d.attempts + 1, due_at = statement_timestamp() + make_interval(secs => $2)
from (
    select id
    from webhook_delivery
    where due_at <= statement_timestamp() and webhook = any($1)
    order by due_at
    limit $3
    for update skip locked
) as due
where d.id = due.id
returning d.id, d.webhook, d.event, d.saga_id, d.body, d.attempts, d.due_at, d.problem, d.created_at
