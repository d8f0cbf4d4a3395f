"""A worker process: makes its share of the environments, then answers until its parent is gone."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .block import block
from .errors import Broke, Mistake, blame
from .link import open_link


def serve(socket_number: int, folder: str) -> None:
    """The process's whole life; it prints to output.log in `folder`."""
    link = open_link(socket_number)
    try:
        _serve(link)
    except Broke as error:
        traceback.print_exc()
        sys.stderr.flush()
        _answer(link, "mistake", f"{error}; its output: {Path(folder, 'output.log')}")
        os._exit(1)
    except Mistake as error:
        _answer(link, "mistake", str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:
        _answer(link, "failed", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        os._exit(1)
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # a simulator's own end has been seen to crash


def _answer(link: Connection, kind: str, value: Any) -> None:
    link.send_bytes(pickle.dumps((kind, value)))


def _serve(link: Connection) -> None:
    module, function, arguments = link.recv()
    share = getattr(importlib.import_module(f".{module}", __package__), function)(**arguments)
    names = ("num_envs", "obs_dim", "action_dim", "max_episode_steps", "dt")
    _answer(link, "done", {name: getattr(share, name) for name in names})
    try:
        path, num_envs, first = link.recv()
        whole = block(num_envs, share.obs_dim, share.action_dim, share.told.count, path)
        rows = whole.rows(first, first + share.num_envs)
        while True:
            message = link.recv()
            if message == "step":
                share.step(rows)
                _answer(link, "done", None)
            elif message == "reset":
                share.reset(rows)
                _answer(link, "done", None)
            else:
                _picture(link, share, *message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        share.close()  # an environment may have processes of its own


def _picture(link: Connection, share: Any, width: int, height: int, index: int) -> None:
    try:
        _answer(link, "done", share.render(width, height, index))
    except Exception as error:  # the simulation is no worse for want of a picture
        traceback.print_exc()
        _answer(link, "mistake", str(error) if isinstance(error, Mistake) else str(blame(share.name, error)))
