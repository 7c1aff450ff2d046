insert or fail into saga (
    id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, stuck, cause, input,
    input_hash, output, reads_outputs, signals, parent, deadline_at, due_at, created_at, updated_at, ended_at)
select
    column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12,
    column13, column14, column15, column16, column17, column18, column19, column20, column21, column22
from (values :rows)
where column1 is not null
    and not exists (select 1 from archived_key a where a.definition_name = column2 and a.key = column4)
on conflict (definition_name, key) do nothing
