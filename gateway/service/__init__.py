"""The life of a request: admission, the log, dispatch, the outcome, replays, and what a dead instance left behind."""
