"""Webhooks: events of the log, delivered to addresses of the tenants' own, at least once."""
