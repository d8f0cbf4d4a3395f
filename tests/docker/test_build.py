"""docker/build.sh hands docker the right words, takes Isaac Gym from the user alone, and explains bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def user_error(done) -> str:
    """The one line of a user's mistake."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_open_image_needs_nothing_but_the_checkout(script, calls):
    done = script("build.sh")
    assert done.returncode == 0, done.stderr
    file = str(ROOT / "docker/Dockerfile")
    assert calls()[-1] == ["buildx", "build", "--load", "--tag", "pql:open", "--file", file, str(ROOT)]
    assert "docker/run.sh" in done.stdout


def test_isaacgym_image_gets_the_downloads_as_named_contexts(script, calls, downloads, tmp_path):
    done = script("build.sh", "isaacgym", "--tarball", downloads["tarball"], "--isaacgymenvs", downloads["envs"])
    assert done.returncode == 0, done.stderr  # the stub saw isaacgym.tar.gz in the first context
    words = calls()[-1]
    contexts = [words[i + 1] for i, word in enumerate(words) if word == "--build-context"]
    assert [context.partition("=")[0] for context in contexts] == ["isaacgym", "isaacgymenvs"]
    assert contexts[1] == f"isaacgymenvs={downloads['envs']}"
    assert words[words.index("--file") + 1] == str(ROOT / "docker/Dockerfile.isaacgym")
    assert words[words.index("--tag") + 1] == "pql:isaacgym"
    assert "licence forbids publishing" in done.stderr
    assert not Path(contexts[0].partition("=")[2]).exists(), "the context made for the tarball is left behind"
    assert downloads["tarball"].exists()


def test_options_reach_docker(script, calls):
    assert script("build.sh", "open", "--tag", "mine:1", "--base", "mirror/cuda:1", "--no-cache").returncode == 0
    words = calls()[-1]
    assert words[words.index("--tag") + 1] == "mine:1"
    assert words[words.index("--build-arg") + 1] == "BASE=mirror/cuda:1"
    assert "--no-cache" in words


def test_dry_run_checks_and_prints_but_builds_nothing(script, calls, downloads):
    words = ("isaacgym", "--tarball", downloads["tarball"], "--isaacgymenvs", downloads["envs"], "--dry-run")
    done = script("build.sh", *words)
    assert done.returncode == 0 and "--build-context" in done.stdout, done.stderr
    assert calls() == [["buildx", "version"]]


def test_help_names_every_option(script, calls):
    done = script("build.sh", "--help")
    assert done.returncode == 0
    for option in ("--tarball", "--isaacgymenvs", "--tag", "--base", "--no-cache", "--dry-run"):
        assert option in done.stdout
    assert "must not be published" in " ".join(done.stdout.split())
    assert calls() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["closed"], "'closed' is no image (open, isaacgym)"),
        (["open", "isaacgym"], "name one image"),
        (["--tag"], "--tag needs a value"),
        (["open", "--tarball", "x.tar.gz"], "belong to the isaacgym image"),
        (["isaacgym"], "needs --tarball FILE: download Isaac Gym Preview 4 from developer.nvidia.com/isaac-gym"),
        (["isaacgym", "--tarball", "missing.tar.gz"], "no file missing.tar.gz: download"),
    ],
)
def test_wrong_words_are_explained(script, calls, words, says):
    assert says in user_error(script("build.sh", *words))
    assert calls() == [], "docker was called though the words were wrong"


def test_a_tarball_that_is_none_is_explained(script, tmp_path):
    (tmp_path / "page.tar.gz").write_text("<html>log in to download</html>")
    assert "is not a whole .tar.gz" in user_error(script("build.sh", "isaacgym", "--tarball", "page.tar.gz"))


def test_a_tarball_of_something_else_is_explained(script, tarball, tmp_path):
    tarball(tmp_path / "other.tar.gz", {"other/setup.py": "version='1.0.preview4'\n"})
    message = user_error(script("build.sh", "isaacgym", "--tarball", "other.tar.gz"))
    assert "holds no isaacgym/python/setup.py" in message


@pytest.mark.parametrize("version", ["1.0.preview3", "1.0.preview2"])
def test_a_tarball_of_another_version_is_explained_whatever_its_name(script, isaacgym_tarball, tmp_path, version):
    isaacgym_tarball(tmp_path / "IsaacGym_Preview_4_Package.tar.gz", version)
    message = user_error(script("build.sh", "isaacgym", "--tarball", "IsaacGym_Preview_4_Package.tar.gz"))
    assert f"is Isaac Gym '{version}', not 1.0.preview4: download" in message


def test_a_wrong_checkout_is_explained(script, downloads, tmp_path):
    words = ("build.sh", "isaacgym", "--tarball", downloads["tarball"])
    assert "needs --isaacgymenvs DIR: git clone" in user_error(script(*words))
    assert "no folder nowhere: git clone" in user_error(script(*words, "--isaacgymenvs", "nowhere"))
    # the package inside the checkout, which is the path that people pass by mistake
    message = user_error(script(*words, "--isaacgymenvs", downloads["envs"] / "isaacgymenvs"))
    assert "is no checkout of IsaacGymEnvs, for it holds no setup.py: git clone" in message


def test_missing_docker_buildx_and_engine_are_explained(script, tmp_path):
    tools = tmp_path / "bin"  # what the script needs, without docker
    tools.mkdir()
    for tool in ("dirname", "cat"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    assert "docker is not installed: see" in user_error(script("build.sh", path=str(tools)))
    assert "docker has no buildx" in user_error(script("build.sh", lacks="buildx"))
    assert "engine does not answer: start it" in user_error(script("build.sh", lacks="engine"))


def test_a_failed_build_keeps_dockers_exit_code(script, tmp_path):
    stub = tmp_path / "failing"
    stub.mkdir()
    (stub / "docker").write_text("#!/bin/sh\n[ \"$2\" = build ] && exit 17\nexit 0\n")
    (stub / "docker").chmod(0o755)
    done = script("build.sh", path=f"{stub}:/usr/bin:/bin")
    assert done.returncode == 17
    assert "built" not in done.stdout
