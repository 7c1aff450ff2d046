insert into participant_pause as known (participant, action, is_paused, since, by, reason)
values ($1, $2, true, clock_timestamp(), $3, $4)
on conflict (participant, action) do update
    set is_paused = true, since = excluded.since, by = excluded.by, reason = excluded.reason
    where not known.is_paused
returning since
