"""Plugins: files or modules of a user's that register tasks, algorithms or environments when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Iterable

from .errors import Mistake


def import_plugins(plugins: Iterable[str]) -> None:
    """Import each Python file (`*.py`) or module, once in a process. Raises Mistake where one isn't there."""
    for plugin in plugins:
        path, name = Path(plugin).resolve(), _module(plugin)
        if name in sys.modules:
            continue
        try:
            if path.suffix == ".py":
                spec = importlib.util.spec_from_file_location(name, path)
                module = sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            else:
                importlib.import_module(plugin)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            sys.modules.pop(name, None)  # or a second load would pass over it
            raise Mistake(f"plugin '{plugin}' cannot be imported: {error}") from error
        except BaseException:
            sys.modules.pop(name, None)
            raise


def is_imported(plugin: str) -> bool:
    """Whether this process has imported it, so that to do so again would run nothing."""
    return _module(plugin) in sys.modules


def _module(plugin: str) -> str:
    path = Path(plugin).resolve()
    return f"plugin:{path}" if path.suffix == ".py" else plugin
