"""A real SLURM cluster of one node in a temporary folder: munge, controller, compute daemon, two partitions."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=40
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""
# cred_expire: a requeued job waits that long, two minutes by default


class Cluster:
    """Starts and ends the daemons; they run as the present user and listen on 127.0.0.1 alone."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        host = socket.gethostname().split(".")[0]
        (self.folder / "state").mkdir()
        (self.folder / "spool").mkdir()
        conf = CONF.format(host=host, user=getpass.getuser(), folder=self.folder, ports=[_free_port(), _free_port()])
        (self.folder / "slurm.conf").write_text(conf)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
                     f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                     f"--seed-file={self.folder}/munged.seed")
        self.until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-N", host)
        self.until(lambda: self.call("sinfo", "--noheader", "--format=%T", check=False).startswith("idle"), "slurm")

    def _daemon(self, *command: str) -> None:
        log = open(self.folder / f"{command[0]}.out", "wb")  # noqa: SIM115 - the daemon's for its life
        self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment))

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def until(self, condition, what: str, limit_s: float = 60.0) -> None:
        limit = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > limit:
                logs = "\n".join(f"{p}:\n{p.read_text(errors='replace')[-2000:]}" for p in self.folder.glob("*.log"))
                pytest.fail(f"waited {limit_s} s for {what}\n{self.call('squeue', check=False)}\n{logs}")
            time.sleep(0.2)

    def stop(self) -> None:
        self.call("scancel", "--user", getpass.getuser(), check=False)
        limit = time.monotonic() + 20
        while self.call("squeue", "--noheader", check=False).strip() and time.monotonic() < limit:
            time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster(request):
    if not any("slurm" in str(argument) for argument in request.config.invocation_params.args):
        pytest.skip("a quarter of an hour on a real cluster: run make test-slurm")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no SLURM here ({', '.join(missing)} not on PATH): run make test-slurm")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has at most 107 characters
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
