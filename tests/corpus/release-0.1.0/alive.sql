SELECT EXISTS (SELECT FROM emberlog.instances WHERE id = $1 AND fenced_at IS NULL)
