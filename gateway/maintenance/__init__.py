"""What an installation has to do from time to time, done by whichever of its gateways takes the turn."""
