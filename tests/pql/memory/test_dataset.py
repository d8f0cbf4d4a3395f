"""Datasets of others: what is read of them, what is refused, and that nothing they name is imported."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from pql.errors import UserError
from pql.memory import dataset

minari = pytest.importorskip("minari", reason="datasets need pip install -e '.[offline]'")
pytest.importorskip("h5py")
from gymnasium import spaces  # noqa: E402 - Minari brings it
from minari.data_collector import EpisodeBuffer  # noqa: E402
from minari.dataset.minari_storage import MinariStorage  # noqa: E402

PLANE = spaces.Box(-np.inf, np.inf, (2,), np.float64)
BOX = spaces.Box(-3.0, 3.0, (1,), np.float64)


def episode(length: int, value: float = 0.0, terminated: bool = True, truncated: bool = False, **changes):
    """Observations count up from `value`."""
    ends = np.arange(length) == length - 1
    facts = {"observations": value + np.arange(2.0 * (length + 1)).reshape(length + 1, 2),
             "actions": np.full((length, 1), 1.5), "rewards": value + np.arange(length, dtype=float),
             "terminations": ends & terminated, "truncations": ends & truncated}  # fmt: skip
    return EpisodeBuffer(**{**facts, **changes})


@pytest.fixture
def made(tmp_path):
    def make(*episodes, obs=PLANE, action=BOX, **metadata):
        (tmp_path / "a-v0" / "data").mkdir(parents=True)
        storage = MinariStorage.new(tmp_path / "a-v0" / "data", obs, action)
        storage.update_metadata({"dataset_id": "a-v0", "minari_version": minari.__version__, **metadata})
        storage.update_episodes(episodes)
        return str(tmp_path / "a-v0")

    return make


def test_steps_keep_true_successors_and_tell_an_end_from_a_cut(made):
    steps = dataset.read(made(episode(2), episode(3, 100.0, terminated=False, truncated=True), episode(1, 7.0, False)))
    assert steps.obs[:, 0].tolist() == [0, 2, 100, 102, 104, 7]
    assert steps.next_obs[:, 0].tolist() == [2, 4, 102, 104, 106, 9]
    assert steps.reward.tolist() == [0, 1, 100, 101, 102, 7]
    assert steps.terminated.tolist() == [False, True, False, False, False, False]
    assert steps.last.tolist() == [False, True, False, False, True, True]  # the third says nothing: it was cut
    assert steps.action.ravel().tolist() == [0.5] * 6  # 1.5 of [-3, 3]
    assert {part.dtype.name for part in steps} == {"float32", "bool"}
    assert [len(rewards) for rewards in steps.episodes()] == [2, 3, 1]


def test_a_part_is_whole_episodes_in_an_order_drawn_by_the_seed(made):
    data = made(*(episode(4, 100.0 * k) for k in range(8)))
    parts = [dataset.read(data, 10, seed) for seed in (0, 0, 1)]
    assert [len(part.reward) for part in parts] == [10, 10, 10]
    assert parts[0].last.nonzero()[0].tolist() == [3, 7, 9] and not parts[0].terminated[9]
    firsts = [tuple(part.obs[::4, 0]) for part in parts]
    assert firsts[0] == firsts[1] != firsts[2] and len({*firsts[0]}) == 3
    with pytest.raises(UserError, match=r"max_env_steps=33: .* holds 32 transitions only"):
        dataset.read(data, 33)


def test_dictionaries_are_flattened_as_gymnasium_does(made):
    space = spaces.Dict({"b": spaces.Box(-9, 9, (2, 2)), "a": spaces.Tuple((spaces.Box(-9, 9, (1,)),))})
    rng = np.random.default_rng(0)
    seen = {"b": rng.random((3, 2, 2), np.float32), "a": (rng.random((3, 1), np.float32),)}
    steps = dataset.read(made(episode(2, observations=seen), obs=space))
    for t in range(2):
        one = {"b": seen["b"][t], "a": (seen["a"][0][t],)}
        np.testing.assert_array_equal(steps.obs[t], spaces.flatten(space, one))


@pytest.mark.parametrize(("episodes", "changes", "rule"), [
    ([episode(2, actions=np.zeros(2, int))], {"action": spaces.Discrete(2)}, "has Discrete actions"),
    ([episode(2)], {"action": spaces.Box(-np.inf, np.inf, (1,))}, "actions without bounds"),
    ([episode(2, observations=np.zeros(3, int))], {"obs": spaces.Discrete(2)}, "has Discrete observations"),
    ([episode(2, observations=np.zeros((3, 4), np.uint8))], {"obs": spaces.Box(0, 9, (4,), np.uint8)}, "Box of uint8"),
    ([episode(3), episode(3, rewards=np.array([0.0, np.nan, 1.0]))], {}, "episode 1 holds NaN .* 1 of 3 .*first: 1"),
    ([episode(3, observations=np.zeros((3, 2)))], {}, "3 rewards, 3 observations and 3 actions"),
    ([], {}, "is empty"),
])  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(made, episodes, changes, rule):
    with pytest.raises(UserError, match=rule):
        dataset.read(made(*episodes, **changes))


def test_actions_beyond_their_bounds_are_cut_off_and_said(made, capsys):
    data = made(episode(100, actions=np.full((100, 1), 3.0)), episode(100, actions=np.full((100, 1), -4.0)))
    assert sorted({*dataset.read(data).action.ravel().tolist()}) == [-1, 1]
    assert "note: 100 of 200 actions lie beyond the bounds" in capsys.readouterr().err


def test_missing_and_damaged_datasets_are_named(made, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"data=b-v0: there is no such dataset; .*minari download"):
        dataset.read("b-v0")
    made(episode(2))
    assert len(dataset.read("a-v0").reward) == 2  # by Minari's name
    (tmp_path / "a-v0" / "data" / "main_data.hdf5").write_bytes(b"no such format")
    with pytest.raises(UserError, match="is damaged"):
        dataset.read("a-v0")
    metadata = tmp_path / "a-v0" / "data" / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "total_episodes": "many"}))
    with pytest.raises(UserError, match=r"is damaged: .* says total_episodes='many'"):
        dataset.read("a-v0")


def test_what_cannot_be_written_is_said_at_once_and_what_fails_leaves_nothing(tmp_path):
    (tmp_path / "a file").touch()
    for out in ("/proc/a-v0", str(tmp_path / "a file" / "a-v0")):
        with pytest.raises(UserError, match=f"out={out} cannot be written"), dataset.writing(out):
            raise AssertionError("too late")
    with pytest.raises(KeyboardInterrupt), dataset.writing(str(tmp_path / "new" / "a-v0")):
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []


def test_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    columns = {"observations": np.zeros((101, 2), np.float32), "actions": np.zeros((100, 1), np.float32)}
    columns.update(rewards=np.zeros(100), terminations=np.zeros(100, bool), truncations=np.ones(100, bool))
    with dataset.writing(str(tmp_path / "a-v0")) as folder:
        dataset.write(folder, "a-v0", 3 * [columns], {"name": "Point", "options": {}}, "")
    used = sum(path.stat().st_size for path in (tmp_path / "a-v0").rglob("*.hdf5"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=used))
    with pytest.raises(OSError, match="No space left"), dataset.writing(str(tmp_path / "b-v0")) as folder:
        dataset.write(folder, "b-v0", 3 * [columns], {"name": "Point", "options": {}}, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a-v0"]


def spec(**changes):
    told = {"id": "Pole-v3", "entry_point": "evil:Pole", "max_episode_steps": 50, "kwargs": {"size": 2},
            "additional_wrappers": []}  # fmt: skip
    return json.dumps({**told, **changes})


def test_environment_comes_from_what_is_registered_here_never_from_the_dataset(made, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = made(episode(2), env_spec=spec())
    assert dataset.task_of(path) == ("Pole-v3", "gymnasium", {"size": 2, "max_episode_steps": 50})
    metadata = tmp_path / "a-v0" / "data" / "metadata.json"

    def now(**changes):
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), **changes}))

    now(env_spec=spec(id="evil:Pole-v3"))
    with pytest.raises(UserError, match="say so yourself with task=evil:Pole-v3 sim=gymnasium"):
        dataset.task_of(path)
    now(env_spec=spec(additional_wrappers=[{"name": "Odd", "entry_point": "evil:Odd", "kwargs": None}]))
    with pytest.raises(UserError, match="within Odd"):
        dataset.task_of(path)
    now(env_spec=None)
    with pytest.raises(UserError, match="does not say what it is of: give task="):
        dataset.task_of(path)
    now(env_spec=spec(), action_space=None)  # for which Minari would make the environment
    with pytest.raises(UserError, match="does not tell its action_space"):
        dataset.read(path)
    assert "evil" not in sys.modules
