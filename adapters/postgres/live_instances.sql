SELECT id FROM emberlog.instances WHERE fenced_at IS NULL
