"""Plugins: files and modules in which tasks, simulators and algorithms of one's own register."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from pql.errors import UserError


def import_plugins(plugins: list[str]) -> None:
    """Import each file or module, so that the tasks and algorithms in it are registered."""
    for plugin in plugins:
        path = Path(plugin).resolve()
        name = f"plugin:{path}" if path.suffix == ".py" else plugin
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
            raise UserError(f"plugin '{plugin}' cannot be imported: {error}") from error
        except BaseException:
            sys.modules.pop(name, None)
            raise
