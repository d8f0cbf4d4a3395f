"""What `gymapi.acquire_gym` returns: creation, actors, tensors, and time.

A function that the original has and no task here calls is absent: calling it says so.
"""

from isaacgym.actors import Actors
from isaacgym.creation import Creation
from isaacgym.tensors import Tensors


class Gym(Creation, Actors, Tensors):
    def simulate(self, sim):
        sim.advance()

    def fetch_results(self, sim, wait):
        pass

    def get_frame_count(self, sim):
        return sim.frame

    def get_sim_params(self, sim):
        return sim.params

    def set_sim_params(self, sim, params):
        sim.params = params
