delete from webhook_delivery where id = $1 and attempts = $2 and state = 'PENDING'
