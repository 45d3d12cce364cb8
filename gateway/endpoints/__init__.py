"""Where requests are sent: the pool of endpoints, their circuits and health, attestation, deployments, and the choice among them."""
