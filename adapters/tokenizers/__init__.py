"""Tokenisers by the names that the catalogue gives them: exact counts, as the models count."""
