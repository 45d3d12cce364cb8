SELECT next_run_at, fence, failures, last_succeeded_at, last_error FROM emberlog.maintenance WHERE task = $1
