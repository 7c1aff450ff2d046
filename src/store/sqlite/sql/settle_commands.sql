update or fail outbox set
    state = 'VERIFIED',
    outcome = new.column3,
    attempt = new.column4,
    output = new.column5,
    problem = new.column6,
    verified_at = new.column7,
    verified_revision = new.column8
from (values :rows) as new
where outbox.saga_id = new.column1 and outbox.seq = new.column2
