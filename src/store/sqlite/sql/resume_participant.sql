update participant_pause set is_paused = 0
where participant = $1 and action = $2 and is_paused and ($3 is null or since = $3)
