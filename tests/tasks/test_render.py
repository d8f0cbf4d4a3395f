"""Pictures: they show the robot, the light and the environment that was asked for."""

import numpy as np
import pytest
import torch

import tasks
from tasks.render import render_grid
from tasks.suite import TASKS

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


@pytest.fixture(scope="module", autouse=True)
def opengl():
    try:
        tasks.make("Cartpole", 1).render(32, 32)
    except tasks.TaskError as error:
        assert "apt install" in str(error)
        pytest.skip(str(error))


def orange(picture):
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return (red > green + 60) & (red > blue + 80)


@pytest.mark.parametrize("name", ["Ant", "BallBalance", "Cartpole", "Humanoid"])
def test_robot_is_lit_and_in_the_middle_of_the_picture(name):
    env = tasks.make(name, 2, seed=1)
    for _ in range(3):
        env.step(torch.zeros(2, env.action_dim))
    picture = env.render(320, 240)
    assert picture.shape == (240, 320, 3) and picture.dtype == np.uint8
    assert 120 < picture.mean() < 220
    rows, columns = orange(picture).nonzero()
    assert len(rows) > 60
    assert abs(np.median(columns) - 160) < 80


@pytest.mark.parametrize("name", TASKS)
def test_camera_sees_the_robot_wherever_it_begins(name):
    env = tasks.make(name, 8, seed=1)
    env.render(160, 120)
    scene = env.simulator._renderer
    scene._renderer.enable_segmentation_rendering()
    moves = scene._model.body_weldid[scene._model.geom_bodyid] > 0  # (ngeom,)
    moves &= scene._model.body_mocapid[scene._model.geom_bodyid] < 0
    for index in range(8):
        number, kind = np.moveaxis(env.render(160, 120, index), 2, 0)
        seen = (kind == mujoco.mjtObj.mjOBJ_GEOM) & moves[number]
        assert seen.sum() > 8, index


@pytest.mark.parametrize("name", ["AllegroHand", "FrankaPush", "Ingenuity", "ShadowHand"])
def test_picture_shows_the_goal_of_its_environment(name):
    env = tasks.make(name, 2, seed=1)
    before = env.render(320, 240).astype(int)
    (key,) = env.task.shown(env._memory)
    shown = env.task.shown
    env.task.shown = lambda memory: {key: shown(memory)[key].flip(0)}  # the other environment's
    assert (np.abs(env.render(320, 240) - before).max(2) > 40).sum() > 3  # a pixel may change by 2 of its own accord


def test_camera_follows_a_robot_that_has_run_away():
    env = tasks.make("Ant", 1)
    near = orange(env.render(160, 120)).sum()
    env.simulator.batch.qpos[0, 0] = 50.0
    assert orange(env.render(160, 120)).sum() == pytest.approx(near, rel=0.2)


def test_shadow_follows_a_robot_that_has_run_away():
    env = tasks.make("Ant", 1)
    near = env.render(320, 240).astype(int)
    env.simulator.batch.qpos[0, 0] += 50.0  # a whole number of the floor's squares: the same picture
    assert np.abs(env.render(320, 240).astype(int) - near).mean() < 0.1


def test_index_chooses_the_environment_and_stepping_is_undisturbed():
    env, twin = tasks.make("Cartpole", 2), tasks.make("Cartpole", 2)
    env.simulator.batch.qpos[1, 1] = twin.simulator.batch.qpos[1, 1] = 1.2
    assert (env.render(160, 120, 0) != env.render(160, 120, 1)).any()
    assert torch.equal(env.step(torch.ones(2, 1)).obs, twin.step(torch.ones(2, 1)).obs)
    with pytest.raises(tasks.TaskError, match=r"index must be in 0\.\.1"):
        env.render(index=2)
    env.close()


def test_grid_tiles_environments_row_by_row():
    env = tasks.make("Cartpole", 4)
    grid = render_grid(env, 2, 2, width=80, height=60)
    assert grid.shape == (120, 160, 3)
    np.testing.assert_array_equal(grid[60:, :80], env.render(80, 60, 2))
    with pytest.raises(tasks.TaskError, match="needs 4 indices, not 3"):
        render_grid(env, 2, 2, indices=[0, 1, 2])
