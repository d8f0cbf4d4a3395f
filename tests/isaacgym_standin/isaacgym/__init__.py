"""A stand-in for NVIDIA Isaac Gym, for tests: its programming interface as far as IsaacGymEnvs' tasks use it here.

It keeps the original's rules, as breaking one of them is what these tests are to find: this package comes before
torch; wrapped tensors alias the simulator's buffers; a buffer shows the state of the last refresh, and writing to it
moves nothing until a setter is called; indexed setters take int32 actor ids; quaternions are x, y, z, w; there is one
simulation per process. Its physics is a toy (`physics.py`).
"""

import sys

if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules: isaacgym comes first")

from isaacgym import absent

absent.install()
