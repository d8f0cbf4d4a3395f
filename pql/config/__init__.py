"""A run's configuration: typed keys, composed from cfg/ and `key=value` words."""

from pql.config.compose import dumps, load, loads, overrides_help, read, save
from pql.config.environment import make_env
from pql.config.plugins import import_plugins
from pql.config.schema import Config, known_keys
from pql.config.together import load_each
from pql.keys import key
