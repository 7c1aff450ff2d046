-- A saga's due time moves with each of its steps, and a row of which an indexed column changes gets a new entry in every
-- index of the table. So it is the slot of eight seconds around the due time that is indexed, which seldom changes from
-- one step to the next; and pages are filled by half, so that there is room for the next version of each row beside it.
-- With both, most updates touch no index at all (HOT), and what would have been dead index entries is not there either.
alter table saga add column due_slot bigint
    generated always as (floor(date_part('epoch', due_at at time zone 'UTC') / 8)::bigint) stored;
comment on column saga.due_slot is 'which eight seconds due_at is in, counted from 1970';
drop index saga_due;
create index saga_due on saga (due_slot) where due_slot is not null;
alter table saga set (fillfactor = 50);
