update api_token set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $3)
