select id, name, role, sha256, last_used_at from api_token
where revoked_at is null and (expires_at is null or expires_at > $1)
order by id desc limit $2
