SELECT emberlog.take_buckets($1, $2, $3, $4, $5, $6)
