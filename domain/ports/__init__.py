"""The ports: what the domain and the gateway ask of the outside world. Adapters implement them; one port a file."""
