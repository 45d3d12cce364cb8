"""`emberlog demo`: the product's main job on real text, with the gateway killed once in the middle."""
