-- $1 the job, $2 who, $3 for how many seconds; 0 gives it back
update bulk_job set holder = $2, lease_until = clock_timestamp() + $3::float8 * interval '1 second'
where id = $1
    and (state = 'RUNNING' or check_due <= clock_timestamp())
    and (lease_until is null or lease_until <= clock_timestamp() or holder = $2)
returning
    id, action, step, filter::text as filter, reason, actor, rate, state, total, is_bounded, applied, refused, failed,
    created_at, updated_at, ended_at, checked::text as checked, check_due
