insert into api_token (name, role, sha256, created_at, created_by, expires_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (name) where revoked_at is null do nothing
returning id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
