"""The management API: one file a resource, each with its table of routes."""
