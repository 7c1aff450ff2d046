insert or fail into history (saga_id, revision, at, event)
select column1, column2, column3, column4
from (values :rows)
where column1 is not null
