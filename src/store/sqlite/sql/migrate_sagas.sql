-- Sagas that were updated in this transaction and have moved to another version.
update saga set definition_version = new.value ->> 'version', reads_outputs = new.value ->> 'reads'
from json_each($1) as new
where saga.id = unhex(new.value ->> 'saga')
