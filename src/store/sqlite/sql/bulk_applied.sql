update bulk_item set outcome = 'applied', revision = new.value ->> 'revision', at = new.value ->> 'at'
from json_each($1) as new
where job_id = unhex(new.value ->> 'job') and saga_id = unhex(new.value ->> 'saga') and outcome is null
