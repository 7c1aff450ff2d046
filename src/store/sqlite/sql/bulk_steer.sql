-- $1 the job, $2 the state it gets, $3 those it may have had, $4 the time, $5 when its sagas are looked at if it is stopped
update bulk_job set
    state = $2,
    updated_at = $4,
    ended_at = case when $2 = 'STOPPED' then $4 end,
    check_due = case when $2 = 'STOPPED' then $5 end
where id = $1 and state in (select value from json_each($3))
