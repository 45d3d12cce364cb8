SELECT emberlog.renew_instance($1, $2)
