"""The statements of the runner."""
