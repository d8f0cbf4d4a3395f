"""AllegroHand: turn a cube in the palm."""

from __future__ import annotations

from tasks.suite.in_hand import InHand
from tasks.suite.models import allegro_hand


class AllegroHand(InHand):
    """Four fingers of four driven joints turn a cube of 6.5 cm, 30 times a second. After IsaacGymEnvs' (v1.5.1).

    Formulas: `InHand`. `observations`: "full_state" (88), "full" (72) or "full_no_vel" (50), without fingertips.

    Departures from the source, beside those of `InHand`:
    - links are capsules, where PhysX has the convex hulls of meshes, and fingers touch the palm with all but the
      links next to it;
    - joints have no dry friction (PhysX's .01 is a share of a force that MuJoCo does not have);
    - the thumb's first joint, whose range does not contain a fifth of most of its angles, begins there just within.
    """

    action_dim = 16
    substeps = 4
    kinds = {"full_state": 88, "full": 72, "full_no_vel": 50}  # noqa: RUF012
    cube = allegro_hand.CUBE
    within = 0.01

    def mjcf(self) -> str:
        return allegro_hand.mjcf()
