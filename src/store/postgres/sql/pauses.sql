select participant, action, since, by, reason from participant_pause where is_paused order by participant, action
