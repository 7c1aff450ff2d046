-- What is left of sagas that were moved to an archive, and storage parameters that keep dead rows bounded under load.

create table archived_key (
    definition_name    text        not null,
    key                text        not null,
    saga_id            uuid        not null,
    definition_version integer     not null,
    state              text        not null,
    input_hash         bytea       not null check (length(input_hash) = 32),
    created_at         timestamptz not null,
    ended_at           timestamptz not null,
    archived_at        timestamptz not null,
    primary key (definition_name, key)
);
comment on table archived_key is 'keys whose sagas were archived: still one saga per definition and key';

create index archived_key_of on archived_key (saga_id);

create table archive_lease (
    id     smallint    not null primary key check (id = 1),
    holder uuid        not null,
    until  timestamptz not null
);
comment on table archive_lease is 'who archives at the moment: one run at a time';

-- A start that waited for the row with its key to be deleted began before the key was in archived_key, and cannot see it
-- there; this looks again, with a snapshot of its own. The start is refused as a conflict and then tried anew.
create function saga_key_is_free() returns trigger language plpgsql as $$
begin
    if exists (
        select from fresh
        join archived_key on archived_key.definition_name = fresh.definition_name and archived_key.key = fresh.key
    ) then
        raise exception 'the key of a new saga was archived at the same moment' using errcode = '40001';
    end if;
    return null;
end
$$;
create trigger saga_key_is_free after insert on saga referencing new table as fresh
    for each statement execute function saga_key_is_free();

-- A saga's row changes with each of its steps and each command once. Vacuum comes after a number of dead rows, whatever
-- the size of the table: a fifth of ten million rows would be two million dead ones. It does not rest in between, since
-- what it has to read is in memory still.
alter table saga set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 5000);
alter table outbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 10000);
