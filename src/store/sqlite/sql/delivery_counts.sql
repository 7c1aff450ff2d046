select
    (select count(*) from (select 1 from webhook_delivery where due_at is not null limit $1)),
    (select count(*) from (select 1 from webhook_delivery where due_at is null limit $1))
