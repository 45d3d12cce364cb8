"""Collections at work: what people do with them, what requests store in them, searches, and the indexes built beside."""
