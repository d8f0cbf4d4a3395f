#!/usr/bin/env bash
# Run a command in an image of the project; see --help.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: docker/run.sh [open|isaacgym] [options] COMMAND...

Run COMMAND in the image pql:open (default) or pql:isaacgym, as you, with your GPUs. The folder ./runs is the
container's runs/, and cfg/ of this checkout its cfg/ (read only), so that both outlive the container.

  docker/run.sh python scripts/train.py task=Ant run_dir=runs/ant

  --gpus WHICH         all (default), none, or numbers: 0 or 0,2
  --shm-size SIZE      shared memory for the three processes, default 16g; replay on a CPU lies there
  --ipc MODE           private (default) or host, which takes the host's shared memory and no --shm-size
  --runs DIR           another folder for runs/; it is made where missing
  --cfg DIR            another folder for cfg/
  --mount SRC:DST      one more folder or file, read and write; may be repeated
  --env NAME=VALUE     an environment variable; may be repeated
  --user UID:GID       who the container runs as, default you
  --mps                run beside an MPS daemon, so that kernels of the three processes overlap on the GPU
  --tag NAME           another image
  --name NAME          the container's name
  --dry-run            check everything and print the docker command instead of running it
  -h, --help           print this

Ctrl-C and 'docker stop' end a run with a checkpoint; two minutes later it is killed.
EOF
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

value() { # value OPTION COUNT: an option that needs a word has one
    [ "$2" -ge 2 ] || fail "$1 needs a value; see docker/run.sh --help"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
image="" tag="" gpus=all shm_size=16g ipc=private runs=runs cfg=$root/cfg user="$(id -u):$(id -g)" name="" mps=false
dry_run=false
more=()
while [ $# -gt 0 ]; do
    case $1 in
        open | isaacgym)
            [ -z "$image" ] || fail "name one image, not '$image' and '$1'"
            image=$1
            ;;
        --gpus) value "$1" $# && gpus=$2 && shift ;;
        --shm-size) value "$1" $# && shm_size=$2 && shift ;;
        --ipc) value "$1" $# && ipc=$2 && shift ;;
        --runs) value "$1" $# && runs=$2 && shift ;;
        --cfg) value "$1" $# && cfg=$2 && shift ;;
        --mount)
            value "$1" $#
            [[ $2 == *:* ]] || fail "--mount $2: must be SRC:DST"
            [ -e "${2%%:*}" ] || fail "--mount $2: there is no ${2%%:*}"
            more+=(--volume "$(realpath "${2%%:*}"):${2#*:}")
            shift
            ;;
        --env)
            value "$1" $#
            [[ $2 == ?*=* ]] || fail "--env $2: must be NAME=VALUE"
            more+=(--env "$2")
            shift
            ;;
        --user) value "$1" $# && user=$2 && shift ;;
        --mps) mps=true ;;
        --tag) value "$1" $# && tag=$2 && shift ;;
        --name) value "$1" $# && name=$2 && shift ;;
        --dry-run) dry_run=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        -*) fail "unknown option $1; see docker/run.sh --help" ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || fail "no command given: docker/run.sh python scripts/train.py task=Ant, say"
image=${image:-open}
tag=${tag:-pql:$image}

[[ $shm_size =~ ^[1-9][0-9]*[kmgKMG]?$ ]] || fail "--shm-size $shm_size: must be a size such as 16g"
[[ $user =~ ^[0-9]+:[0-9]+$ ]] || fail "--user $user: must be two numbers, UID:GID"
[ -d "$cfg" ] || fail "--cfg $cfg: there is no such folder"
case $ipc in
    private) memory=(--ipc private --shm-size "$shm_size") ;;
    host) memory=(--ipc host) ;;
    *) fail "--ipc $ipc: must be private or host" ;;
esac
if [ "$gpus" = all ]; then
    gpu=(--gpus all)
elif [ "$gpus" = none ]; then
    gpu=()
    ! $mps || fail "--mps needs a GPU: leave out --mps or --gpus none"
elif [[ $gpus =~ ^[0-9]+(,[0-9]+)*$ ]]; then
    gpu=(--gpus "\"device=$gpus\"") # docker itself wants these quotes around a list
else
    fail "--gpus $gpus: must be all, none, or numbers such as 0 or 0,2"
fi
[ "$image" = open ] || [ "$gpus" != none ] || fail "Isaac Gym needs a GPU: leave out --gpus none"

command -v docker >/dev/null || fail "docker is not installed: see docs.docker.com/engine/install"
runtimes=$(docker info --format '{{json .Runtimes}}' 2>/dev/null) ||
    fail "docker's engine does not answer: start it (sudo systemctl start docker), or join its group (sudo usermod -aG docker \$USER)"
# The toolkit's hook serves --gpus even where no runtime of its own is registered.
if [ "$gpus" != none ] && [[ $runtimes != *nvidia* ]] && ! command -v nvidia-container-runtime-hook >/dev/null; then
    fail "docker cannot pass in a GPU: install nvidia-container-toolkit, then sudo nvidia-ctk runtime configure" \
        "--runtime=docker and restart docker; or run with --gpus none"
fi
docker image inspect "$tag" >/dev/null 2>&1 || fail "no image $tag here: build it with docker/build.sh $image"

# Made by us: docker would make a missing folder as root's.
mkdir -p "$runs" 2>/dev/null || fail "--runs $runs: cannot make that folder"
[ -w "$runs" ] || fail "--runs $runs: that folder is not yours to write to"

command=(docker run --rm --init --stop-timeout 120 "${memory[@]}" ${gpu[@]+"${gpu[@]}"}
    --ulimit memlock=-1 --ulimit stack=67108864 --user "$user"
    --volume "$(realpath "$runs"):/opt/pql/runs" --volume "$(realpath "$cfg"):/opt/pql/cfg:ro")
[ ! -t 0 ] || [ ! -t 1 ] || command+=(--interactive --tty)
[ -z "$name" ] || command+=(--name "$name")
! $mps || command+=(--env PQL_MPS=1)
command+=(${more[@]+"${more[@]}"} "$tag" "$@")

if $dry_run; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
