"""A whole update, traced and compiled: it does what the plain one does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from pql import config
from pql.roles import fused, recorded
from pql.roles.build import make_replay, prepare
from pql.roles.p_learner import PLearner
from pql.roles.together import at
from pql.roles.v_learner import VLearner
from tasks.base import Spaces

PARTS_BIN = Path(__file__).resolve().parents[1] / "parts_bin.py"
SMALL = {
    "pql": {"algo.hidden": "[16,8]", "algo.policy_average": 0.1, "algo.weight_decay": 1.0},  # enough to be seen
    "pql_d": {"algo.hidden": "[16,8]", "algo.num_atoms": 11, "algo.activation": "relu"},
    "sac": {"algo.hidden": "[16,8]"},
    "bro_fast": {"algo.critic_width": 16, "algo.actor_width": 16, "algo.num_quantiles": 5},
    "flash_sac": {"algo.critic_width": 16, "algo.actor_width": 16, "algo.num_atoms": 11},
    "parts_bin": {},  # running statistics, a schedule, a constraint, a scalar
}
ROLES = {"v": VLearner, "p": PLearner}


@pytest.fixture
def learner(tiny, plugin):
    """A learner on a filled ring; the same for the same arguments."""

    def make(algo, role, **changes):
        words = tiny(algo=algo, **SMALL[algo], **changes)
        if algo in ("bro_fast", "flash_sac"):
            words = [word for word in words if not word.startswith("algo.hidden")]
        if algo == "parts_bin":
            config.import_plugins([str(PARTS_BIN)])
            plugins = next(w for w in words if w.startswith("plugins=")).partition("=")[2].strip("[]")
            words = [word for word in words if not word.startswith("plugins=")]
            words.append(f"plugins=[{plugins},{PARTS_BIN}]")
        cfg = config.load(words)
        algorithm, _, shared = prepare(cfg, Spaces(5, 2))
        replay, generator = make_replay(cfg, algorithm, shared), torch.Generator().manual_seed(0)
        for _ in range(40):
            obs, next_obs = torch.randn(2, 8, 5, generator=generator)
            replay.append(obs, torch.rand(8, 2, generator=generator), obs[:, 0], next_obs)
        one = ROLES[role](cfg, algorithm, replay, shared)
        one.normalizer.mean += 0.3
        one.normalizer.inv_std *= 0.7
        return one

    return make


def state_of(one):
    state = {name: tensor.clone() for name, tensor in one.state_dict().items() if name != "generator"}
    for net, module in vars(one.nets).items():  # a count lies in no vector
        state.update({f"{net}.{key}": b.clone() for key, b in module.named_buffers() if not b.is_floating_point()})
    return {**state, "updates": one.updates.clone(), "sums": one.shared.boards[one.role].sums.clone()}


def assert_same(mine, plain, rtol):
    assert mine.keys() == plain.keys()
    for name, value in plain.items():
        scale = float(value.abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(mine[name], value, rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("algo", SMALL)
def test_what_is_traced_is_the_update(learner, algo, role, monkeypatch):
    """Without a compiler: the recorded operations themselves."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, *_, **__: graph, raising=False)
    plain, traced = learner(algo, role), learner(algo, role)
    begin = state_of(plain)
    traced.improved = fused.Fused(traced, traced.sample())
    traced.generator.set_state(plain.generator.get_state())
    for _ in range(5):
        plain.step()
        traced.step()
    assert_same(state_of(traced), state_of(plain), 1e-4)
    assert not torch.equal(begin["weights"], plain.weights.data)
    # what others write between updates must come in by the state: a constant of a graph may be folded into its code
    graph = traced.improved.compiled
    changing = [traced.weights.data, traced.targets.data, traced.theirs.data, traced.normalizer.mean]
    changing += [traced.normalizer.inv_std]
    changing += [tensor for one in traced.optimizers.values() for tensor in one.state_dict().values()]
    changing += [traced.scale.factor] if traced.scale is not None else []
    kept = [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    places = {tensor.data_ptr() for tensor in changing if tensor.numel()}
    assert not any(tensor.data_ptr() in places for tensor in kept if isinstance(tensor, torch.Tensor))


@pytest.mark.skipif(not shutil.which("g++"), reason="a compiled update needs a C++ compiler")
@pytest.mark.parametrize("algo, role", [("pql", "v"), ("pql", "p"), ("parts_bin", "p")])
def test_compiled_update_is_the_plain_one(learner, algo, role):
    plain, compiled = learner(algo, role), learner(algo, role, compile="true")
    assert isinstance(compiled.improved, fused.Fused) and not isinstance(plain.improved, fused.Fused)
    for n in range(6):
        if n == 3:  # between updates others write what it reads
            for one in (plain, compiled):
                one.normalizer.mean -= 0.5
                one.begin_anew(1)
        plain.step()
        compiled.step()
    assert_same(state_of(compiled), state_of(plain), 1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="a compiled update needs a C++ compiler")
def test_what_was_compiled_once_comes_from_the_cache(tmp_path, monkeypatch):
    """With the constants that it has now."""
    config = pytest.importorskip("torch._inductor.config")
    if not config.fx_graph_cache:
        pytest.skip("this torch keeps no graphs")
    from torch._dynamo.utils import counters
    from torch.fx.experimental.proxy_tensor import make_fx

    def hits():
        return counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"]

    def affine(support, added):
        constant = torch.tensor([support, 0.0, 0.0])  # a tensor, and a number
        return make_fx(lambda x: [(x * constant).sum() + added])(torch.zeros(3))

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    found = []
    for support, added in ((1.0, 1), (1.0, 1), (2.0, 1), (1.0, 2)):
        before = hits()
        (value,) = recorded.compiled(affine(support, added), [torch.zeros(3)])(torch.ones(3))
        assert float(value) == support + added
        found.append(hits() > before)
    assert found[:2] == [False, True] and not found[3]


def test_what_cannot_be_compiled_runs_as_it_is(learner, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch._inductor, "compile", broken, raising=False)
    one = learner("pql", "p", compile="true")
    assert one.improved == one.improve
    said = capsys.readouterr().err
    assert said.startswith("note: not compiled (no C++ compiler)") and "compile=false" in said and said.count("\n") == 1
    one.step()


def test_loss_that_looks_at_a_value_is_named_and_runs_as_it_is(learner, monkeypatch, capsys):
    from pql.algorithms.pql import PQL

    plain = PQL.critic_loss

    def looks(self, *args):
        loss, metrics = plain(self, *args)
        return (loss * 0.5 if loss > 1 else loss), metrics

    monkeypatch.setattr(PQL, "critic_loss", looks)
    one = learner("pql", "v", compile="true")
    assert one.improved == one.improve
    said = capsys.readouterr().err
    assert "let algo=pql look at no tensor's value" in said and "g++" not in said and said.count("\n") == 1
    one.step()


def test_what_a_compiler_does_best_is_the_same_network(learner):
    one = learner("pql", "v")
    x = torch.randn(7, 7)
    with fused.for_a_compiler():
        mine = one.nets.critic(x)
    torch.testing.assert_close(mine, one.nets.critic(x))
    assert at(one, "optimizers.critic.steps") is one.optimizers["critic"].steps
