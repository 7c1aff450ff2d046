update api_token set revoked_at = $4, revoked_by = $2, revoke_reason = $3
where name = $1 and revoked_at is null
returning id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
