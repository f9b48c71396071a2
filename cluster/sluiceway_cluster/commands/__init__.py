"""The commands about servers; `pyproject.toml` names them as entry points of `sluiceway.commands`."""
