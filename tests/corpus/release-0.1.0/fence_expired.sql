SELECT emberlog.fence_expired()
