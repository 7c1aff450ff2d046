insert into api_token (name, role, sha256, created_at, created_by, expires_at)
select $1::text, $2::text, $3::bytea, now, $4::text, now + $5 * interval '1 second' from (select clock_timestamp() as now) moment
on conflict (name) where revoked_at is null do nothing
returning id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
