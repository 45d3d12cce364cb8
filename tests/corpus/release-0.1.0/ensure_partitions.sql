SELECT emberlog.ensure_partitions()
