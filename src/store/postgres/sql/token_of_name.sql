select id, name, role, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
from api_token
where name = $1
order by id desc limit 1
