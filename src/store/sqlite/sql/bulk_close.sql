-- $1 the job, $2 its items, $3 the time
update bulk_item set
    outcome = new.value ->> 'outcome', code = new.value ->> 'code', detail = new.value ->> 'detail', at = $3
from json_each($2) as new
where job_id = $1 and saga_id = unhex(new.value ->> 'saga') and outcome is null
