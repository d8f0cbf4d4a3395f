"""A stand-in for Isaac Lab 3.0.0: the semantics of its environments' step."""
