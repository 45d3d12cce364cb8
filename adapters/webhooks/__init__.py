"""Sending webhooks: signed, to addresses that may be reached, once per call."""
