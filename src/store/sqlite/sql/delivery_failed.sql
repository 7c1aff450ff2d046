-- $4 when it is tried again; null parks it.
update webhook_delivery
set state = case when $4 is null then 'PARKED' else 'PENDING' end, due_at = $4, problem = $3
where id = $1 and attempts = $2 and state = 'PENDING'
