-- Counted up to $1 each: the table is small, and should it not be, nobody waits for it.
select
    (select count(*) from (select from webhook_delivery where due_at is not null limit $1) as pending),
    (select count(*) from (select from webhook_delivery where due_at is null limit $1) as parked)
