SELECT emberlog.register_instance($1, $2)
