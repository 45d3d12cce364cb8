"""The catalogue at work: assembled for requests, seeded from the release, validated by probes."""
