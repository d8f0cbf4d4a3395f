"""dm_control's own suite, to compare with."""

import logging

import pytest


@pytest.fixture(scope="session")
def load():
    """`load(domain, task, seed)`: dm_control's environment; its last version asks for fields that MuJoCo 4 lacks."""
    mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
    logging.getLogger("absl").setLevel(logging.ERROR)  # a deprecated attribute in cheetah.xml
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUJOCO_GL", "disable")  # read at import; our own pictures are made in this process
        pytest.importorskip("dm_control", reason="dm-control is not installed: pip install .[dmc]")
        from dm_control import suite
        from dm_control.mujoco.wrapper.mjbindings import sizes

    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    for table, owner in (("mjmodel", model), ("mjdata", mujoco.MjData(model))):
        for name in [name for name in sizes.array_sizes[table] if not hasattr(owner, name)]:
            del sizes.array_sizes[table][name]
    return lambda domain, task, seed: suite.load(domain, task, task_kwargs={"random": seed})
