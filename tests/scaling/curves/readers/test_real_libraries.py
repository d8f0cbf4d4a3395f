"""Short trainings by the libraries themselves, resumed once: the table is what their environments counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slowed down by a second thread."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_stable_baselines3_evaluations_stand_at_the_env_steps_that_its_environments_counted(tmp_path, read):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    gym = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from stable_baselines3.common.callbacks import EvalCallback
    from stable_baselines3.common.env_util import make_vec_env

    counted, right = [0], {}

    class Counting(gym.Wrapper):
        def step(self, action):
            counted[0] += 1
            return self.env.step(action)

    class Recording(EvalCallback):
        def _on_step(self):
            going_on = super()._on_step()
            if self.n_calls % self.eval_freq == 0:
                right[counted[0]] = self.last_mean_reward
            return going_on

    def callback():
        return Recording(gym.make("Pendulum-v1"), n_eval_episodes=1, eval_freq=25, verbose=0,
                         log_path=str(tmp_path / "run" / "eval"))  # fmt: skip

    env = make_vec_env("Pendulum-v1", 2, seed=3, wrapper_class=Counting, monitor_dir=str(tmp_path / "run" / "monitor"))
    model = sb3.SAC("MlpPolicy", env, learning_rate=2e-3, batch_size=32, learning_starts=50, gradient_steps=1, seed=3,
                    policy_kwargs={"net_arch": [8]}, tensorboard_log=str(tmp_path / "run"))  # fmt: skip
    model.learn(150, callback=callback())
    model.save(tmp_path / "model")
    model = sb3.SAC.load(tmp_path / "model", env=env)
    model.learn(100, callback=callback(), reset_num_timesteps=False)
    model.save(tmp_path / "run" / "model")

    table = read(tmp_path / "run")
    assert table["env_steps"].tolist() == sorted(right) == [50, 100, 150, 200, 250]
    assert table["episode_return"].tolist() == pytest.approx([right[step] for step in sorted(right)], rel=1e-5)
    row = table.iloc[0]
    assert (row["task"], row["utd"], row["batch_size"], row["seed"]) == ("Pendulum-v1", 0.5, 32, 3)
    assert row["learning_rate"] == 2e-3


def test_rsl_rl_iterations_stand_at_the_env_steps_that_its_environment_counted(tmp_path, read):
    pytest.importorskip("rsl_rl", reason="rsl-rl-lib is not installed")
    torch = pytest.importorskip("torch")
    from rsl_rl.env import VecEnv
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    from pql.bench.peer_learners import PPO

    num_envs, steps, length = 16, 8, 10
    counted = []

    class Point(VecEnv):
        """Pays 1 a step for `length` steps: whole episodes return `length`."""

        def __init__(self):
            self.num_envs, self.num_actions, self.device, self.cfg = num_envs, 1, "cpu", {}
            self.max_episode_length = length
            self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)

        def get_observations(self):
            return TensorDict({"policy": torch.rand(num_envs, 3)}, batch_size=num_envs)

        def step(self, actions):
            counted.append(num_envs)
            self.episode_length_buf += 1
            done = (self.episode_length_buf >= length).long()
            self.episode_length_buf[done.bool()] = 0
            return self.get_observations(), torch.ones(num_envs), done, {"time_outs": done.float()}

    def runner():
        cfg = {**copy.deepcopy(PPO["runner"]), "num_steps_per_env": steps}
        return OnPolicyRunner(Point(), cfg, log_dir=str(tmp_path / "run"), device="cpu")

    torch.manual_seed(0)
    first = runner()
    first.learn(15, init_at_random_ep_len=True)
    second = runner()
    [saved] = (tmp_path / "run").glob("model_14.pt")
    second.load(str(saved))
    second.learn(15, init_at_random_ep_len=True)

    meta = "task=Point,seed=0,utd=.1,batch_size=64,learning_rate=1e-3"
    table = read(tmp_path / "run", f"{meta},num_envs={num_envs},max_episode_length={length}")
    assert table["env_steps"].max() == sum(counted) == 30 * num_envs * steps
    assert np.unique(table["episode_return"]).tolist() == [length]  # none of an episode that was cut short
    # 10 x (16 + 100) = 1160 env steps of each session fill the mean with whole episodes: nine iterations of 128 do not
    assert len(table) == 2 * (15 - 9)


def test_skrl_sessions_stand_at_the_env_steps_that_its_environments_counted(tmp_path, read):
    pytest.importorskip("skrl", reason="skrl is not installed")
    gym = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    torch = pytest.importorskip("torch")
    from skrl.agents.torch import Agent, AgentCfg, ExperimentCfg
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.trainers.torch import SequentialTrainer

    num_envs, length, counted = 4, 10, [0]

    class Point(gym.Env):
        """Pays 1 a step for `length` steps."""

        observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (1,))

        def reset(self, *, seed=None, options=None):
            self.age = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            counted[0] += 1
            self.age += 1
            return np.zeros(1, np.float32), 1.0, False, self.age >= length, {}

    class Still(Agent):
        """The library's own counting and logging around no learning."""

        def act(self, observations, states, *, timestep, timesteps):
            return torch.zeros(num_envs, 1), {}

        def pre_interaction(self, *, timestep, timesteps):
            pass

        def post_interaction(self, *, timestep, timesteps):
            super().post_interaction(timestep=timestep, timesteps=timesteps)

        def update(self, *, timestep, timesteps):
            pass

    same_step = gym.vector.AutoresetMode.SAME_STEP
    trained = {"disable_progressbar": True, "headless": True, "close_environment_at_exit": False}
    for steps in (100, 60):
        env = wrap_env(gym.vector.SyncVectorEnv([Point] * num_envs, autoreset_mode=same_step))
        experiment = ExperimentCfg(directory=str(tmp_path), experiment_name="run", write_interval=10)
        agent = Still(cfg=AgentCfg(experiment=experiment), models={}, observation_space=env.observation_space,
                      action_space=env.action_space, device="cpu")  # fmt: skip
        SequentialTrainer(env=env, agents=agent, cfg={"timesteps": steps, **trained}).train()
        agent.writer.close()

    table = read(tmp_path / "run", f"task=P,seed=0,utd=.5,batch_size=64,learning_rate=1e-3,num_envs={num_envs}")
    assert table["env_steps"].max() == counted[0] == num_envs * 160
    assert (table["env_steps"].diff().dropna() > 0).all()
    assert set(table["episode_return"]) == {float(length)}
