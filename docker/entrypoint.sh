#!/bin/bash
# Run a command in the container; with PQL_MPS=1 beside an MPS daemon of its own, which ends after the command does.
set -euo pipefail

if [ "${PQL_MPS:-0}" != 1 ]; then
    exec "$@"
fi

if ! command -v nvidia-cuda-mps-control >/dev/null; then
    echo "error: no nvidia-cuda-mps-control in the container: pass a GPU in, or leave --mps out" >&2
    exit 2
fi

# The daemon's pipes are this container's own, so that neither a daemon of the host nor one of a neighbour is touched.
CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/mps.XXXXXX")
export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
if ! nvidia-cuda-mps-control -d; then
    echo "error: the MPS daemon did not start (is the GPU in exclusive mode, or under MIG?); leave --mps out" >&2
    exit 2
fi

# shellcheck disable=SC2329 # the trap calls it
stop_daemon() {
    # quit waits for the server to end; a client that hangs must not hold up the container for ever.
    echo quit | timeout "${PQL_MPS_QUIT_S:-20}" nvidia-cuda-mps-control >/dev/null ||
        echo "note: the MPS daemon did not quit; it ends with the container" >&2
    rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
}
trap stop_daemon EXIT

# The command runs as a child so that the daemon outlives it. What asks this shell to stop is handed on (SIGINT as
# SIGTERM: a terminal's Ctrl-C reaches the child by itself, and a second SIGINT would cut its checkpoint short), and the
# shell waits until the child has ended. A shell's background children ignore SIGINT unless told otherwise.
(
    trap - INT
    exec "$@"
) &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
trap 'kill -USR2 "$child" 2>/dev/null || true' USR2
while :; do
    wait "$child" && code=0 || code=$?
    kill -0 "$child" 2>/dev/null || break # otherwise a signal ended the wait, not the command
done
exit "$code"
