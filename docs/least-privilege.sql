-- Rights on PostgreSQL for running amends with no more than it needs. Run by a superuser or the database's owner,
-- after `amends migrate`; not part of the migrations. Repeat the grants after each upgrade that adds a table.
--
--   amends_runtime   what `amends serve` needs: no DDL, no DELETE but of what webhooks have taken; history, audit, definitions and
--                    deprecations are insert-only; it reads API tokens, but cannot make one, and makes data keys, but cannot
--                    exchange them: `amends tokens` and `amends encryption rewrap` run as the owner of the tables
--   amends_reader    for people and dashboards: reads everything but the keys that sign tokens and the wrapped data keys
--
-- `amends migrate` runs as the owner of the tables. Give the roles to the users that log in:
--
--   create user amends_serve password '...' in role amends_runtime;

create role amends_runtime nologin;
create role amends_reader nologin;

-- Before PostgreSQL 15 everybody may create tables in the schema `public`.
revoke create on schema public from public;
grant usage on schema public to amends_runtime, amends_reader;

grant select on amends_migration to amends_runtime, amends_reader;
grant select, insert, update on saga, outbox, participant_pause, bulk_job, bulk_item to amends_runtime;
grant select, insert on definition, deprecation, history, audit, token_key, data_key to amends_runtime;
grant select on archived_key, api_token to amends_runtime;
grant update (last_used_at) on api_token to amends_runtime;
grant select, insert, update, delete on webhook_delivery to amends_runtime;
grant select on definition, deprecation, saga, outbox, history, audit, archived_key, participant_pause, bulk_job, bulk_item, webhook_delivery to amends_reader;

-- For `amends archive`, and for `amends serve --retention`: a role that may remove what has ended.
create role amends_archivist nologin;
grant usage on schema public to amends_archivist;
grant select on amends_migration to amends_archivist;
grant select, insert, delete, update on saga, outbox to amends_archivist;
grant select, insert, delete on history, audit, archived_key to amends_archivist;
grant select, delete on bulk_job, bulk_item to amends_archivist;
grant select, insert, update on archive_lease to amends_archivist;
