"""The rule of a verdict: conditions on a claim's figures, fixed before the run, in words and in code alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["holds", "mixed", "does not hold here", "cannot show here"]
Relation = Literal["above", "below", "around", "at least", "at most", "within"]
_OF_THE_INTERVAL = ("above", "below", "around")


@dataclass(frozen=True)
class Part:
    """One condition on the figure of that name.

    above, below: the whole 95 % interval lies above, or below, the limit. around: the interval holds the limit.
    at least, at most: a number, or the mean of a difference, against the limit. within: its size is at most the limit.
    """

    figure: str
    relation: Relation
    limit: float = 0.0

    def met(self, figures: Mapping[str, Any]) -> bool:
        value = figures[self.figure]
        if self.relation in _OF_THE_INTERVAL:
            low, high = value["low"], value["high"]
            if self.relation == "around":
                return bool(low <= self.limit <= high)
            return bool(low > self.limit if self.relation == "above" else high < self.limit)
        number = float(value["mean"] if isinstance(value, Mapping) else value)
        if self.relation == "within":
            return abs(number) <= self.limit
        return number >= self.limit if self.relation == "at least" else number <= self.limit

    def words(self) -> str:
        if self.relation == "around":
            return f"{self.figure}: interval holds {self.limit:g}"
        if self.relation in _OF_THE_INTERVAL:
            return f"{self.figure}: interval {self.relation} {self.limit:g}"
        return f"{self.figure}: {self.relation} {self.limit:g}"


@dataclass(frozen=True)
class Rule:
    """bed: without all of these the bed cannot show the effect. holds: all of them. mixed: alternatives, each a group
    of conditions; one whole group is enough. None: any one condition of `holds`; an empty tuple: never mixed.
    """

    holds: tuple[Part, ...]
    mixed: tuple[tuple[Part, ...], ...] | None = None
    bed: tuple[Part, ...] = ()

    @property
    def groups(self) -> tuple[tuple[Part, ...], ...]:
        """What makes the verdict mixed, one group of conditions at a time."""
        if self.mixed is not None:
            return self.mixed
        return tuple((part,) for part in self.holds) if len(self.holds) > 1 else ()

    def verdict(self, figures: Mapping[str, Any]) -> Verdict:
        """figures: those of the claim and of its bed, by name."""
        met = lambda parts: all(part.met(figures) for part in parts)
        if not met(self.bed):
            return "cannot show here"
        if met(self.holds):
            return "holds"
        return "mixed" if any(met(group) for group in self.groups) else "does not hold here"

    def words(self) -> str:
        """The rule as a result shows it; an interval is the 95 % interval over seeds."""
        said = "; ".join(part.words() for part in self.holds)
        if self.mixed is not None and self.mixed:
            said += (
                f". Mixed if {', or if '.join('; '.join(p.words() for p in group) for group in self.mixed)}"
            )
        elif self.groups:
            said += ". Mixed if only some of these are so"
        if self.bed:
            said += f". Cannot show here without {'; '.join(part.words() for part in self.bed)}"
        return said
