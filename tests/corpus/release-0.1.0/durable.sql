-- An append is answered only when it is on disk. Stricter settings (a standby that has applied it) are left as they are.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
