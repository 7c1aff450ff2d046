-- Tokens that coordinators accept, known by their hashes alone; and the audit log by who and what.

create table api_token (
    id            bigint      not null generated always as identity primary key,
    name          text        not null check (length(name) between 1 and 64),
    role          text        not null check (role in ('viewer', 'starter', 'registrar', 'operator', 'admin')),
    sha256        bytea       not null unique check (length(sha256) = 32),
    created_at    timestamptz not null,
    created_by    text        not null,
    expires_at    timestamptz check (expires_at > created_at),
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    revoked_by    text,
    revoke_reason text,
    constraint api_token_revoked check (
        (revoked_at is null) = (revoked_by is null) and (revoked_at is null) = (revoke_reason is null))
);
comment on table api_token is 'who may use the HTTP interface and the console; a row is never deleted';
comment on column api_token.sha256 is 'of the token''s text, which is random enough that a plain hash serves';
comment on column api_token.last_used_at is 'roughly: written once an hour at most';

-- A name is free again once its token was revoked.
create unique index api_token_name on api_token (name) where revoked_at is null;

create index audit_actor on audit (actor, id);
create index audit_action on audit (action, id);
