-- Their commands follow to the places that their steps have in the new version.
update outbox set step_index = new.value ->> 'index'
from json_each($1) as new
where outbox.saga_id = unhex(new.value ->> 'saga')
    and outbox.step = new.value ->> 'step'
    and outbox.step_index <> new.value ->> 'index'
