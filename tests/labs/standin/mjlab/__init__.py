"""A stand-in for mjlab 1.6.0: its registry, and the semantics of its environment's step and partial reset."""
