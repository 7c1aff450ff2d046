-- $1 the job, $2 who, $3 until when; now gives it back; $4 the time
update bulk_job set holder = $2, lease_until = $3
where id = $1
    and (state = 'RUNNING' or check_due <= $4)
    and (lease_until is null or lease_until <= $4 or holder = $2)
returning
    id, action, step, filter, reason, actor, rate, state, total, is_bounded, applied, refused, failed,
    created_at, updated_at, ended_at, checked, check_due
