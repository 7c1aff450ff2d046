update participant_pause set is_paused = false
where participant = $1 and action = $2 and is_paused and ($3::timestamptz is null or since = $3)
returning clock_timestamp()
