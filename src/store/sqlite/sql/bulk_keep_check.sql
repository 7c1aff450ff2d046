-- $1 the job, $2 what was found, $3 when to look again
update bulk_job set checked = $2, check_due = $3, holder = null, lease_until = null
where id = $1
