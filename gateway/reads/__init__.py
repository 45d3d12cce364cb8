"""Reads of the log and its views for callers of the API, kept apart from the requests' path: connections and bounds of their own."""
