-- Tokens that coordinators accept, known by their hashes alone; and the audit log by who and what.

create table api_token (
    id            integer primary key autoincrement,
    name          text    not null check (length(name) between 1 and 64),
    role          text    not null check (role in ('viewer', 'starter', 'registrar', 'operator', 'admin')),
    sha256        blob    not null unique check (length(sha256) = 32),
    created_at    integer not null,
    created_by    text    not null,
    expires_at    integer check (expires_at > created_at),
    last_used_at  integer,
    revoked_at    integer,
    revoked_by    text,
    revoke_reason text,
    constraint api_token_revoked check (
        (revoked_at is null) = (revoked_by is null) and (revoked_at is null) = (revoke_reason is null))
) strict;

-- A name is free again once its token was revoked.
create unique index api_token_name on api_token (name) where revoked_at is null;

create index audit_actor on audit (actor, id);
create index audit_action on audit (action, id);
