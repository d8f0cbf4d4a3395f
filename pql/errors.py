"""What a run may end with: a user's mistake, or a role that failed."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Iterable, Iterator

from pql.files import FULL


class UserError(Exception):
    """A mistake in what the user asked for: one line that says what is wrong and how to mend it."""


class RoleFailed(Exception):
    """One of the three roles died, raised, hung or diverged; the message names it and the cause."""


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known word nearest to `word`, or '' where none is near."""
    match = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]}?)" if match else ""


def say_no_more() -> None:
    """Whoever read our lines (`| head`) has seen enough: the rest of them, and Python's last flush, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def user_errors() -> Iterator[None]:
    """In a script: a user's mistake becomes one line on stderr and exit code 2; a bug keeps its traceback."""
    from torch.cuda import OutOfMemoryError

    from tasks import TaskError

    try:
        yield
    except (UserError, TaskError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except OutOfMemoryError as error:
        print(f"error: the GPU's memory is too small ({str(error).partition('. GPU')[0]}): try a smaller num_envs,"
              " algo.replay_size or algo.batch_size, or algo.replay_device=cpu", file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        say_no_more()
        sys.exit(1)
    except OSError as error:  # of the disk and of names; others are bugs
        if error.errno not in (*FULL, errno.ENAMETOOLONG, errno.EACCES, errno.EROFS):
            raise
        print(f"error: {error.strerror}: {error.filename or 'while writing'}", file=sys.stderr)
        sys.exit(1 if error.errno in FULL else 2)  # which passes, and is worth another try
    else:
        return
    sys.exit(2)
