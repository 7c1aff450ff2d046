select id, at, actor, saga_id, action, reason, detail from audit
where ($1 is null or saga_id = $1) and ($2 is null or id < $2)
    and ($4 is null or actor = $4) and ($5 is null or action = $5) and ($6 is null or at >= $6)
order by id desc limit $3
