"""Pictures of environments, drawn from a model and data of their own so that stepping pays nothing for them."""

from __future__ import annotations

import os
import sys
from typing import Any, Sequence

import numpy as np

from tasks.base import VectorEnv
from tasks.errors import TaskError
from tasks.task import Task

SHADOWS = 2048  # pixels each way of the map of shadows; mujoco's own: 4096
_REMEDY = "install EGL with a software driver (Debian: apt install libegl1 libgl1-mesa-dri) or set MUJOCO_GL"


def _use_egl() -> None:
    """On Linux without MUJOCO_GL render off screen; mujoco's own default needs a display.

    Done here rather than by the environment variable because mujoco reads that when it is first imported, which
    may be long before anybody wants a picture.
    """
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        from mujoco.egl import GLContext
        from mujoco.rendering.classic import gl_context

        gl_context.GLContext = GLContext


def compiled(task: Task) -> Any:
    """The task's model, a mujoco.MjModel. Raises TaskError."""
    import mujoco

    try:
        model = mujoco.MjModel.from_xml_string(task.mjcf(), task.assets())
    except ValueError as error:
        what = " ".join(str(error).split())
        raise TaskError(f"the model of {type(task).__name__} does not compile: {what}") from error
    task.adapt(model)
    return model


class Renderer:
    """Draws one state of a task's model at a time, `width` x `height` pixels."""

    def __init__(self, task: Task, width: int, height: int):
        import mujoco

        if width < 1 or height < 1:
            raise TaskError(f"a picture needs at least one pixel each way, not {width} x {height}")
        self.size = width, height
        self._mujoco, self._task = mujoco, task
        model = compiled(task)
        for geom in range(model.ngeom):
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
                # Draw the floor where it begins to push: that is where feet are seen to rest.
                model.geom_pos[geom, 2] += 2 * model.geom_margin[geom]
        glob, quality = model.vis.global_, model.vis.quality
        glob.offwidth, glob.offheight = max(glob.offwidth, width), max(glob.offheight, height)
        # Without a GPU a picture's time goes into the map of shadows and the mirror image in the floor as much as into
        # what is looked at: half of it is saved, and the eye finds no difference.
        quality.shadowsize = min(quality.shadowsize, SHADOWS)
        self._model, self._data = model, mujoco.MjData(model)
        try:
            _use_egl()
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # whatever a missing driver makes PyOpenGL raise
            raise TaskError(f"no OpenGL to render with ({type(error).__name__}): {_REMEDY}") from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._camera = mujoco.MjvCamera()
        if not isinstance(task.camera, dict):
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = model.camera(task.camera).id
            return
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        for name in ("distance", "azimuth", "elevation"):
            setattr(self._camera, name, task.camera[name])

    def draw(self, qpos: np.ndarray, shown: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """The scene at positions `qpos` (nq,), and what `Task.shown` says: (height, width, 3) uint8."""
        self._data.qpos[:] = qpos
        for name, value in (shown or {}).items():
            getattr(self._data, name)[:] = value
        self._mujoco.mj_forward(self._model, self._data)
        if isinstance(self._task.camera, dict):
            self._look_at_robot()
        self._renderer.update_scene(self._data, self._camera)
        return self._renderer.render()

    def _look_at_robot(self) -> None:
        look_at = np.zeros(3)
        if self._task.tracked_body is not None:
            look_at[:2] = self._data.body(self._task.tracked_body).xpos[:2]
        look_at[2] = self._task.camera["height"]  # steady while the robot bobs
        self._camera.lookat[:] = look_at
        self._data.light_xpos[:, :2] += look_at[:2]  # the sun comes along: shadows are drawn only near its place

    def close(self) -> None:
        self._renderer.close()


def render_grid(
    env: VectorEnv, rows: int = 2, columns: int = 2, width: int = 320, height: int = 240, indices: Sequence[int] = ()
) -> Any:
    """Several environments side by side: (rows * height, columns * width, 3) uint8.

    Args:
        env: the environments.
        rows, columns: of the grid.
        width, height: of each picture in pixels.
        indices: which environments, row by row; by default the first rows * columns.
    """
    chosen = list(indices) or list(range(rows * columns))
    if len(chosen) != rows * columns:
        raise TaskError(f"a grid of {rows} x {columns} needs {rows * columns} indices, not {len(chosen)}")
    pictures = [env.render(width, height, index) for index in chosen]
    lines = [np.concatenate(pictures[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    return np.concatenate(lines, axis=0)
