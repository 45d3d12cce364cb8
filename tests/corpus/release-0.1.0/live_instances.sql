SELECT id FROM emberlog.instances WHERE fenced_at IS NULL AND ($1::text IS NULL OR description = $1)
