SELECT emberlog.fence_instance($1)
