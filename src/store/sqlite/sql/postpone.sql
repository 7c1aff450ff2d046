update saga set due_at = new.column2
from (values :rows) as new
where saga.id = new.column1 and saga.due_at is not null
