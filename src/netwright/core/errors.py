"""What can go wrong, said in one line that tells the user what to do.

The command line prints the message of any `NetwrightError` after ``error:`` and exits with 2;
everything else that escapes is a fault of ours and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NetwrightError(Exception):
    """Base of all errors that a user can act on."""


class BadInput(NetwrightError):
    """A file, an array, a name or an option that cannot be used as it is."""


class CannotWrite(BadInput):
    """A disk that is full or a folder that is closed."""


class NotApplicable(NetwrightError):
    """This method cannot serve this network or task, and says why. A study shows it as such."""


class OutOfTime(NotApplicable):
    """The budget was too small for a first result."""


class UnsupportedOperator(NotApplicable):
    """A network uses an operator that a table of ours does not know."""

    def __init__(self, operator: str, node: str, use: str, supported: str = "") -> None:
        hint = f" Supported: {supported}." if supported else ""
        super().__init__(f"node '{node}' uses the operator {operator}, which {use} cannot read yet.{hint}")
        self.operator, self.node = operator, node

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.args, self.__dict__)


class UnknownName(BadInput):
    """A name that is in no list of ours; the message offers the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"no {kind} named '{name}'.{guess}{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.args, self.__dict__)


class MissingExtra(NetwrightError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'netwright[{extra}]'")

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[Exception], args: tuple, state: dict) -> Exception:
    """Errors cross process borders; their constructors must not be called twice."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
