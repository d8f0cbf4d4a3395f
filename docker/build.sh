#!/usr/bin/env bash
# Build an image of the project; see --help.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: docker/build.sh [open] [options]
       docker/build.sh isaacgym --tarball FILE --isaacgymenvs DIR [options]

Build the image pql:open (Python 3.12, MuJoCo) or pql:isaacgym (Python 3.8, NVIDIA Isaac Gym Preview 4).

  --tarball FILE       your download of Isaac Gym Preview 4 (IsaacGym_Preview_4_Package.tar.gz)
  --isaacgymenvs DIR   your checkout of IsaacGymEnvs
  --tag NAME           the image's name; default pql:open or pql:isaacgym
  --base IMAGE         another base image, your mirror's say
  --no-cache           build every step again
  --dry-run            check everything and print the docker command instead of running it
  -h, --help           print this

Isaac Gym is under NVIDIA's licence: it is taken from your download, never fetched, and the image that contains it
must not be published.
EOF
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

value() { # value OPTION COUNT: an option that needs a word has one
    [ "$2" -ge 2 ] || fail "$1 needs a value; see docker/build.sh --help"
}

image="" tarball="" envs="" tag="" base="" dry_run=false
extra=()
while [ $# -gt 0 ]; do
    case $1 in
        open | isaacgym)
            [ -z "$image" ] || fail "name one image, not '$image' and '$1'"
            image=$1
            ;;
        --tarball) value "$1" $# && tarball=$2 && shift ;;
        --isaacgymenvs) value "$1" $# && envs=$2 && shift ;;
        --tag) value "$1" $# && tag=$2 && shift ;;
        --base) value "$1" $# && base=$2 && shift ;;
        --no-cache) extra+=(--no-cache) ;;
        --dry-run) dry_run=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "'$1' is no image (open, isaacgym) and no option; see docker/build.sh --help" ;;
    esac
    shift
done
image=${image:-open}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
download="download Isaac Gym Preview 4 from developer.nvidia.com/isaac-gym and pass it as --tarball FILE"

# The version that the tarball's own setup.py states; the file's name proves nothing.
version_in() {
    local listing setup
    listing=$(tar -tzf "$1" 2>/dev/null) || fail "$1 is not a whole .tar.gz: $download"
    setup=$(grep -m1 -E '^(\./)?isaacgym/python/setup\.py$' <<<"$listing") ||
        fail "$1 holds no isaacgym/python/setup.py, so it is not Isaac Gym: $download"
    tar -xzOf "$1" "$setup" | sed -nE "s/.*version *= *['\"]([^'\"]+)['\"].*/\1/p" | head -n 1
}

check_isaacgym() {
    [ -n "$tarball" ] || fail "the isaacgym image needs --tarball FILE: $download"
    [ -f "$tarball" ] || fail "no file $tarball: $download"
    local version
    version=$(version_in "$tarball")
    case $version in
        1.0.preview4 | 1.0rc4) ;;
        *) fail "$tarball is Isaac Gym '${version:-of no stated version}', not 1.0.preview4: $download" ;;
    esac
    local clone="git clone https://github.com/isaac-sim/IsaacGymEnvs and pass its path"
    [ -n "$envs" ] || fail "the isaacgym image needs --isaacgymenvs DIR: $clone"
    [ -d "$envs" ] || fail "no folder $envs: $clone"
    local part
    for part in setup.py assets isaacgymenvs/tasks/__init__.py; do
        [ -e "$envs/$part" ] || fail "$envs is no checkout of IsaacGymEnvs, for it holds no $part: $clone"
    done
}

if [ "$image" = isaacgym ]; then
    check_isaacgym
else
    [ -z "$tarball$envs" ] || fail "--tarball and --isaacgymenvs belong to the isaacgym image: docker/build.sh isaacgym ..."
fi

command -v docker >/dev/null || fail "docker is not installed: see docs.docker.com/engine/install"
docker buildx version >/dev/null 2>&1 ||
    fail "docker has no buildx, which these images need: install your distribution's docker-buildx or docker-buildx-plugin"

command=(docker buildx build --load --tag "${tag:-pql:$image}")
if [ "$image" = isaacgym ]; then
    # A context is a folder: one that holds the tarball and nothing else of the user's downloads.
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    ln "$tarball" "$context/isaacgym.tar.gz" 2>/dev/null || cp "$tarball" "$context/isaacgym.tar.gz"
    command+=(--file "$root/docker/Dockerfile.isaacgym"
        --build-context "isaacgym=$context" --build-context "isaacgymenvs=$envs")
else
    command+=(--file "$root/docker/Dockerfile")
fi
[ -z "$base" ] || command+=(--build-arg "BASE=$base")
command+=(${extra[@]+"${extra[@]}"} "$root")

if $dry_run; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
docker info >/dev/null 2>&1 ||
    fail "docker's engine does not answer: start it (sudo systemctl start docker), or join its group (sudo usermod -aG docker \$USER)"
[ "$image" = open ] || echo "note: the image will contain NVIDIA Isaac Gym; its licence forbids publishing it" >&2
"${command[@]}"
echo "built ${tag:-pql:$image}; docker/run.sh --help says how to run it"
