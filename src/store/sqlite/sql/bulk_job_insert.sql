insert into bulk_job (
    id, action, step, filter, reason, actor, rate, state, total, is_bounded, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, 'RUNNING', $8, $9, $10, $10)
