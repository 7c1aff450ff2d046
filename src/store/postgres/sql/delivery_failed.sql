-- $4 after how many seconds it is tried again; null parks it.
update webhook_delivery set
    state = case when $4::double precision is null then 'PARKED' else 'PENDING' end,
    due_at = statement_timestamp() + make_interval(secs => $4::double precision),
    problem = $3
where id = $1 and attempts = $2 and state = 'PENDING'
