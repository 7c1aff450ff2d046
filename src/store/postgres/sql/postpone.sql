update saga set due_at = new.due_at
from unnest($1::uuid[], $2::timestamptz[]) as new (id, due_at)
where saga.id = new.id and saga.due_at is not null
