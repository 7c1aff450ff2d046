-- $1 the job, $2 what was found, $3 after how many seconds to look again
update bulk_job set
    checked = $2::text::json,
    check_due = clock_timestamp() + $3::float8 * interval '1 second',
    holder = null,
    lease_until = null
where id = $1
