"""The catalog as domains and clauses for one problem: what the solver searches. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from packaging.version import InvalidVersion, Version

from labwright.catalog import Catalog, Component, Constraint, asked, matches
from labwright.solver.clauses import Clause, Clauses, smallest


@dataclass(frozen=True, slots=True)
class Problem:
    """What to solve, component → value.

    ``wanted``: what the lab needs, in order of importance. ``facts``: what cannot move here.
    ``wishes``: of lab.yaml, ``1.36`` for any 1.36.x. ``kept``: of lab.lock, taken where legal.
    """

    wanted: tuple[str, ...]
    facts: Mapping[str, str]
    wishes: Mapping[str, str]
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked_for(self) -> tuple[str, ...]:
        """What is wanted, and what is wished besides."""
        return tuple(dict.fromkeys((*self.wanted, *self.wishes)))

    @property
    def names(self) -> tuple[str, ...]:
        """All that the lab has."""
        return tuple(dict.fromkeys((*self.asked_for, *self.facts)))


@dataclass(frozen=True, slots=True)
class Given:
    """What a search must respect: the components that are there, and the wishes that hold."""

    present: frozenset[str]
    wishes: frozenset[str]

    def without(self, present: Iterable[str], wishes: Iterable[str]) -> Given:
        """Give up components and wishes; with a component goes its wish."""
        gone = frozenset(present)
        return Given(self.present - gone, self.wishes - gone - frozenset(wishes))


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A constraint with its clauses. ``implied``: it only says where versions can be had."""

    constraint: Constraint
    clauses: tuple[Clause, ...]
    implied: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The components that it speaks of here."""
        return tuple(dict.fromkeys(name for clause in self.clauses for name, _ in clause))


@dataclass(frozen=True, slots=True)
class Core:
    """A conflict: what is there and wished, and the rules between."""

    given: Given
    rules: tuple[Rule, ...]


class Space:
    """All that a problem allows and forbids."""

    def __init__(self, catalog: Catalog, problem: Problem) -> None:
        """Turn the constraints that concern the problem into clauses."""
        self.catalog, self.problem = catalog, problem
        self.names, self.asked_for = problem.names, problem.asked_for
        self.values = {name: self._values(name) for name in self.names}
        self.everything = Given(frozenset(self.names), frozenset(problem.wishes))
        rules = [(c, False) for c in catalog.constraints]
        rules += [(c, True) for c in implied(catalog)]
        made = (Rule(c, tuple(self._clauses(c, by)), by) for c, by in rules)
        self.rules = tuple(rule for rule in made if rule.clauses)
        self._every = _clauses(self.rules)

    def first(self, given: Given) -> dict[str, str] | None:
        """Give the first legal set of what is asked for, facts among it; ``None`` if none is."""
        return self._first(given, self._every)

    def conflict(self, given: Given) -> Given:
        """Find a minimal part of what has no solution that has none either.

        What the user named is left out last, so that the conflict speaks of it where it can.
        """
        order = [name for name in reversed(self.names) if name in given.present]
        wished = [name for name in order if name in given.wishes]
        loose = [name for name in order if name not in given.wishes]
        loose.sort(key=lambda name: name in self.problem.facts)
        there, wish = "there", "wish"
        items = [*((there, n) for n in loose), *((wish, n) for n in wished)]
        items += [(there, n) for n in wished]
        return _given(smallest(items, lambda left: self.first(_given(left)) is None))

    def core(self, given: Given) -> Core:
        """Find a conflict as a person would tell it: with all that was wished of its components.

        Their full wishes leave fewer constraints to name; of those none can be left out.
        """
        part = self.conflict(given)
        told = Given(part.present, part.present & given.wishes)
        rules = [rule for rule in self.rules if _about(rule, told)]
        rules.sort(key=lambda rule: not rule.implied)
        least = smallest(rules, lambda left: self._first(told, _clauses(left)) is None)
        return Core(told, tuple(rule for rule in self.rules if rule in least))

    def _first(self, given: Given, clauses: Clauses) -> dict[str, str] | None:
        """Try given up wishes first, the nearest value first; then as ``wanted`` lists them."""
        names = [name for name in self.names if name in given.present]
        domains = {name: self._domain(name, name in given.wishes) for name in names}
        names.sort(key=lambda n: n in given.wishes or n not in self.problem.wishes)
        order = [(name, self._preference(name, name in given.wishes)) for name in names]
        found = clauses.first(domains, order)
        if found is None:
            return None
        return {
            name: self.values[name][found[name].bit_length() - 1]
            for name in self.asked_for
            if name in found
        }

    def mask_of_wish(self, name: str) -> int:
        """Give the bits of the values that a wish asks for."""
        return _wished(self.values[name], self.problem.wishes[name])

    def _values(self, name: str) -> tuple[str, ...]:
        if name in self.problem.facts:
            return (self.problem.facts[name],)
        component = self.catalog.components.get(name)
        return versions(component) if component else ()

    def _domain(self, name: str, wished: bool) -> int:
        if not wished:
            return (1 << len(self.values[name])) - 1
        return self.mask_of_wish(name)

    def _preference(self, name: str, wished: bool) -> Sequence[int]:
        values = self.values[name]
        wish, kept = self.problem.wishes.get(name), self.problem.kept.get(name)
        if wish is not None and not wished:
            return nearest_first(values, wish)
        bits = [1 << at for at in reversed(range(len(values)))]
        return [1 << values.index(kept), *bits] if kept in values else bits

    def _clauses(self, rule: Constraint, by_release: bool) -> Iterator[Clause]:
        """One clause a need: it holds, or something of ``when`` does not."""
        if not all(name in self.values for name in rule.when):
            return
        unless = [
            (name, ~mask(self.values[name], text) & ((1 << len(self.values[name])) - 1))
            for name, text in rule.when.items()
        ]
        for name, text in rule.needs.items():
            if name in self.values and not (by_release and self._strange(name)):
                yield (*unless, (name, mask(self.values[name], text)))

    def _strange(self, name: str) -> bool:
        """Whether a fact is a version that no release tells more about."""
        fact, component = self.problem.facts.get(name), self.catalog.components.get(name)
        return fact is not None and (component is None or component.release(fact) is None)


def _given(items: Iterable[tuple[str, str]]) -> Given:
    """Read what is left of a conflict; a wish of what is not there has no say."""
    left = set(items)
    present = frozenset(name for kind, name in left if kind == "there")
    return Given(present, present & {name for kind, name in left if kind == "wish"})


def _clauses(rules: Iterable[Rule]) -> Clauses:
    return Clauses(clause for rule in rules for clause in rule.clauses)


def _about(rule: Rule, given: Given) -> bool:
    return any(all(name in given.present for name, _ in c) for c in rule.clauses)


def versions(component: Component) -> tuple[str, ...]:
    """Give a component's versions, oldest first."""
    return tuple(release.version for release in component.releases)


@lru_cache(8192)
def mask(values: tuple[str, ...], expression: str) -> int:
    """Give the bits of the values that fit an expression."""
    return sum(1 << at for at, value in enumerate(values) if matches(expression, value))


@lru_cache(1024)
def _wished(values: tuple[str, ...], wish: str) -> int:
    return sum(1 << at for at in _hits(values, wish))


def _hits(values: Sequence[str], wish: str) -> list[int]:
    """Find what a wish means: the very version where there is one, as pause has 3.10 and 3.10.1."""
    if wish in values:
        return [values.index(wish)]
    return [at for at, value in enumerate(values) if asked(wish, value)]


@lru_cache(1024)
def nearest_first(values: tuple[str, ...], wish: str) -> list[int]:
    """Give the bits of ``values`` (oldest first) by distance from what a wish asks for.

    Of two at one distance the newer comes first; a wish that is no version of the list counts as
    standing where it would belong.
    """
    hits: Sequence[float] = _hits(values, wish)
    if not hits:
        hits = [sum(_older(value, wish) for value in values) - 0.5]
    places = range(len(values))
    near = sorted(places, key=lambda at: (min(abs(at - hit) for hit in hits), -at))
    return [1 << at for at in near]


def _older(value: str, wish: str) -> bool:
    try:
        return Version(value) < Version(wish)
    except InvalidVersion:
        return True


@lru_cache(8)
def implied(catalog: Catalog) -> tuple[Constraint, ...]:
    """Give what the releases say: which versions a supply has, and which a guest takes."""
    return tuple(
        rule
        for component in catalog.components.values()
        for rule in (*_where(catalog, component, "supply"), *_where(catalog, component, "guest"))
    )


def _where(catalog: Catalog, component: Component, word: str) -> Iterator[Constraint]:
    if word not in catalog.components:
        return
    for place in versions(catalog.components[word]):
        there = [
            release
            for release in component.releases
            if place in (names := release.supplies if word == "supply" else release.guests)
            or not names
        ]
        if len(there) == len(component.releases):
            continue
        have = ", ".join(release.version for release in there) or "none"
        owner = f"the {place} supply" if word == "supply" else f"Labwright's guest {place}"
        yield Constraint(
            id=f"{place}-{component.name}",
            when={word: place},
            needs={component.name: " | ".join(release.version for release in there) or "none"},
            why=f"of {component.title}, {owner} has {have}",
            source=(there or component.releases)[-1].source,
        )
