"""How far a model can be trusted, on held-out episodes."""
