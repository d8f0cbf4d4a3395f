#!/bin/sh
# Install what tests/slurm needs on Debian or Ubuntu: SLURM's daemons and munge. No service is started.
set -eu
if command -v slurmctld slurmd sbatch munged >/dev/null 2>&1; then exit 0; fi
command -v apt-get >/dev/null || { echo "install slurm (slurmctld, slurmd, sbatch) and munge by hand" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "run as root: sudo $0" >&2; exit 2; }
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
