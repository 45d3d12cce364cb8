"""Quotas and budgets in a gateway: the gate that requests pass, the keeper of the leases behind it, and what tidies up after the dead."""
