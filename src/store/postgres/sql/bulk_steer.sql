-- $1 the job, $2 the state it gets, $3 those it may have had, $4 when its sagas are looked at if it is stopped
update bulk_job set
    state = $2,
    updated_at = clock_timestamp(),
    ended_at = case when $2 = 'STOPPED' then clock_timestamp() end,
    check_due = case when $2 = 'STOPPED' then clock_timestamp() + $4::float8 * interval '1 second' end
where id = $1 and state = any($3::text[])
