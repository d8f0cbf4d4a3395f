"""IsaacGymEnvs' own code, task by task, on the stand-in simulator: what it leaves in replay is true.

`ISAACGYMENVS_PATH=<checkout> make test-isaacgym`. 300 steps of random actions in 16 environments each; every row of
replay is compared with books kept apart from the adapter, see tests/isaacgym_standin/check_replay.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).resolve().parents[2] / "isaacgym_standin"
CHECKOUT = os.environ.get("ISAACGYMENVS_PATH")
BOTH, FALLS, TIME, LOST = {"fall", "time"}, {"fall"}, {"time"}, {"fall", "lost"}
# Task and its settings, with limits short enough for both ends of an episode to occur where the stand-in's physics let
# them; when it resets; what its critic sees; how its episodes end here.
TASKS = [
    ("Cartpole", (), "post", 0, FALLS),  # its limit of 500 is fixed
    ("Ant", ("env.episodeLength=60",), "post", 0, BOTH),
    ("Humanoid", ("env.episodeLength=40",), "post", 0, BOTH),
    ("Anymal", ("env.learn.episodeLength_s=1.2",), "post", 0, BOTH),
    ("FrankaCubeStack", ("env.episodeLength=60",), "post", 0, TIME),
    ("FrankaCabinet", ("env.episodeLength=60",), "post", 0, TIME),
    ("BallBalance", ("env.maxEpisodeLength=150",), "pre", 0, BOTH),
    ("AllegroHand", ("env.episodeLength=33",), "pre", 0, BOTH),
    ("ShadowHand", ("env.episodeLength=73",), "pre", 0, BOTH),
    ("ShadowHandOpenAI_FF", ("env.resetTime=1.3",), "pre", 211, BOTH),
    ("Quadcopter", ("env.maxEpisodeLength=100",), "pre", 0, BOTH),
    ("Ingenuity", ("env.maxEpisodeLength=60",), "pre", 0, BOTH),
    ("Trifinger", ("env.episodeLength=60",), "pre", 113, TIME),
    ("AllegroKuka", ("env.subtask=regrasping", "env.episodeLength=100"), "pre", 99, BOTH),
    ("AllegroKuka", ("env.subtask=throw", "env.episodeLength=100"), "pre", 99, TIME),
    ("AllegroKukaTwoArmsLSTM", ("env.episodeLength=60",), "pre", 196, BOTH),
    ("AllegroHandDextremeManualDR", ("env.resetTime=1",), "pre", 174, BOTH),
    ("FactoryTaskNutBoltPick", ("rl.max_episode_length=60",), "pre", 0, TIME),
    ("IndustRealTaskPegsInsert", ("rl.max_episode_length=60",), "pre", 47, TIME),
    ("AnymalTerrain", ("env.learn.episodeLength_s=1.2",), "same", 0, LOST),
    ("AnymalTerrain", ("env.learn.episodeLength_s=1.2", "env.terrain.terrainType=plane"), "same", 0, LOST),
    ("HumanoidAMP", ("env.episodeLength=30", "env.motion_file=amp_humanoid_walk.npy"), "later", 0, FALLS),
    ("HumanoidAMPHands", ("env.episodeLength=30",), "later", 0, FALLS),
]


@pytest.mark.skipif(not CHECKOUT, reason="ISAACGYMENVS_PATH names no checkout of IsaacGymEnvs")
@pytest.mark.parametrize(
    "name, settings, habit, states, ends", TASKS, ids=["-".join((task[0], *task[1][:1])) for task in TASKS]
)
def test_isaacgymenvs_own_code_leaves_only_true_transitions_in_replay(
    standin, tmp_path, name, settings, habit, states, ends
):
    if name.startswith("IndustReal") and not (standin.PACKAGES / "urdfpy").is_dir():
        pytest.skip("make test-isaacgym installs what it loads meshes with")
    done = subprocess.run(
        [sys.executable, str(STANDIN / "check_replay.py"), name, "300", *(f"task.cfg.{s}" for s in settings)],
        capture_output=True, text=True, cwd=str(tmp_path), timeout=600,
        env={**os.environ, **standin.environment(CHECKOUT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    print(name, *settings, json.dumps(counts))
    assert counts["rows"] == 298 * 16
    assert counts["learned"] > 0.6 * counts["rows"]
    assert (counts["habits"], counts["states"]) == ([habit], states)
    assert {end for end in ("fall", "time", "lost") if counts[end] > 5} == ends
    ended = counts["fall"] + counts["time"]
    assert counts["joined"] >= (0 if habit == "same" else ended - 16)
