select id, at, actor, saga_id, action, reason, detail::text from audit
where ($1::uuid is null or saga_id = $1) and ($2::bigint is null or id < $2)
    and ($4::text is null or actor = $4) and ($5::text is null or action = $5)
    and ($6::timestamptz is null or at >= $6)
order by id desc limit $3
