"""Chaos: requests of several tenants through the real request service while a provider's simulated server misbehaves, and what became of each."""
