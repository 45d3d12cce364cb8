"""The catalogue follows the providers: their lists of models are read from time to time, and when somebody asks."""
