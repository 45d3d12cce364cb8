SELECT emberlog.drop_old_dedupe_keys()
