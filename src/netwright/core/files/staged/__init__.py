"""A network as several static files and a plan that says which of them run: what branches on its values, compiled."""

from netwright.core.files.staged.folder import read_folder, write_folder
from netwright.core.files.staged.staged import Staged

__all__ = ["Staged", "read_folder", "write_folder"]
