"""What keeps a request out before it costs anything: rate limits, and failed attempts to get in."""
