"""Alerts: worked out from the log and its views, raised and resolved by events, told to whoever should know."""
