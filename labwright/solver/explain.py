"""Words for what the solver found: why a version was chosen, and why nothing could be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from labwright.catalog import matches
from labwright.errors import Finding
from labwright.solver.nearest import Nearest
from labwright.solver.space import Core, Given, Rule, Space, versions

DOCS = "docs/versions.md"
MOST_WHYS = 3


def reason(space: Space, chosen: Mapping[str, str], name: str) -> str:
    """Say in a clause why a component has the version it has."""
    problem, version = space.problem, chosen[name]
    if name in problem.facts:
        return "given by host, provider or supply"
    if name in problem.wishes:
        wish = problem.wishes[name]
        return "lab.yaml asks for it" if wish == version else f"lab.yaml asks for {wish}"
    if problem.kept.get(name) == version:
        return "as lab.lock has it"
    return _why_newest(space, chosen, name)


def _why_newest(space: Space, chosen: Mapping[str, str], name: str) -> str:
    offered, limits = _offered(space, name)
    if len(offered) == 1:
        return f"the only one{limits}"
    if chosen[name] != offered[-1]:
        return _why_not(space, chosen, name, offered[offered.index(chosen[name]) + 1])
    if space.catalog.components[name].kind == "word":
        return "the first choice"
    return "the newest" if chosen[name] == space.values[name][-1] else f"the newest{limits}"


def _offered(space: Space, name: str) -> tuple[list[str], str]:
    """Give the versions that the given supply and guest have, and words for what limits them."""
    facts, values, limits = space.problem.facts, space.values[name], ""
    for word, where in (("supply", "in"), ("guest", "on")):
        rules = [
            rule.constraint
            for rule in space.rules
            if rule.implied and name in rule.constraint.needs and word in rule.constraint.when
        ]
        for rule in rules:
            if matches(rule.when[word], facts.get(word, "")):
                left = tuple(v for v in values if matches(rule.needs[name], v))
                limits += f" {where} {facts[word]}" if left != values else ""
                values = left
    return list(values), limits


def _why_not(space: Space, chosen: Mapping[str, str], name: str, newer: str) -> str:
    """Name the component, and the constraint, that keeps the next newer version out."""
    names = space.asked_for
    before = {n: chosen[n] for n in names[: names.index(name)]}
    fixed = {**space.problem.facts, **before, name: newer}
    wishes = {n: w for n, w in space.problem.wishes.items() if n not in fixed}
    other_space = Space(space.catalog, replace(space.problem, facts=fixed, wishes=wishes))
    for rule in other_space.core(other_space.everything).rules:
        others = {**space.problem.facts, **chosen}
        when = {n: text for n, text in rule.constraint.when.items() if n != name}
        other = next((n for n in rule.names if n != name), "")
        if other and all(matches(text, others[n]) for n, text in when.items()):
            said = "what {} needs" if _exact(rule, name) else "the newest that {} allows"
            return f"{said.format(f'{other} {others[other]}')} ({rule.constraint.id})"
    return "the newest that goes with the rest"


def _exact(rule: Rule, name: str) -> bool:
    text = rule.constraint.needs.get(name, "")
    return text[:1].isdigit() and not set(text) & set("*|")


def unknown(space: Space, sets: Sequence[Nearest]) -> Iterator[tuple[str, Finding]]:
    """Find the wishes for what the catalog does not have, by component."""
    for name, wish in space.problem.wishes.items():
        component = space.catalog.components.get(name)
        if name in space.problem.facts or space.mask_of_wish(name):
            continue
        if component is None:
            what = f"there is no component {name!r}"
            have = "the catalog knows " + ", ".join(space.catalog.components)
            yield name, Finding("spec.unknown-component", "error", what, have, "", key(name), DOCS)
            continue
        yield (
            name,
            Finding(
                "spec.unknown-version",
                "error",
                f"the catalog has no {component.title} {wish}",
                _what_there_is(space, name),
                _fix(space, sets, [name]),
                key(name),
                DOCS,
            ),
        )


def _what_there_is(space: Space, name: str) -> str:
    supply = space.problem.facts.get("supply")
    every = versions(space.catalog.components[name])
    offered, _ = _offered(space, name)
    text = f"it has {listed(every)}"
    if supply and len(offered) < len(every):
        text += f"; the {supply} supply has {listed(offered)}" if offered else ""
    return text


def listed(values: Sequence[str]) -> str:
    """List versions, of each minor the newest alone, so that a list stays readable."""
    minors = {".".join(value.split(".")[:2]): value for value in values}
    return ", ".join(minors.values()) or "none"


def conflict(space: Space, core: Core, sets: Sequence[Nearest]) -> Finding:
    """Make the finding of a conflict: who, why with sources, and the nearest legal sets."""
    names = [n for n in space.names if n in core.given.present]
    asked_for = [n for n in names if n in core.given.wishes]
    addons = [n for n in names if n not in asked_for and _kind(space, n) == "addon"]
    keys = asked_for or addons
    return Finding(
        "spec.versions-conflict",
        "error",
        _what(space, core, names),
        _why(core) or "provider, supply or host leave no choice of it",
        _fix(space, sets, names),
        key(keys[0]) if asked_for else ("addons" if addons else ""),
        DOCS,
    )


def _what(space: Space, core: Core, names: Sequence[str]) -> str:
    facts = space.problem.facts
    only = core.rules[0] if len(core.rules) == 1 and core.rules[0].implied else None
    wished = [name for name in names if name in core.given.wishes]
    if only and "supply" in facts and "supply" in only.constraint.when and len(wished) <= 1:
        missing = next(iter(only.constraint.needs))
        return f"the {facts['supply']} supply has no {_named(space, core.given, missing)}"
    told = [n for n in names if n in wished or n in facts or _kind(space, n) == "addon"]
    if len(told) < 2:
        told = list(names)
    said = [_named(space, core.given, name) for name in told]
    if len(said) == 1:
        here = f", and here it is {facts[told[0]]}" if told[0] in facts else ""
        return f"lab.yaml asks for {said[0]}{here}" if here else f"no {said[0]} can be had here"
    return f"{', '.join(said[:-1])} and {said[-1]} do not go together"


def _kind(space: Space, name: str) -> str:
    component = space.catalog.components.get(name)
    return component.kind if component else "tool"


def _named(space: Space, given: Given, name: str) -> str:
    problem, component = space.problem, space.catalog.components.get(name)
    value = problem.wishes[name] if name in given.wishes else problem.facts.get(name, "")
    title = component.title if component else name
    if name in {"supply", "provider"} and value:
        return f"the {value} {title}"
    return f"{title} {value}".strip()


def _why(core: Core) -> str:
    rules = core.rules[-MOST_WHYS:]
    return "; ".join(f"{r.constraint.why} ({r.constraint.source})" for r in rules)


def _fix(space: Space, sets: Sequence[Nearest], about: Sequence[str]) -> str:
    if not sets:
        return "nothing in lab.yaml can help: another host or provider may"
    return ", or ".join(_offer(space, found, about) for found in sets)


def _offer(space: Space, found: Nearest, about: Sequence[str]) -> str:
    """Write one set: what the user named and what the conflict is about, and what it keeps."""
    wishes = space.problem.wishes
    named = [n for n in found.versions if n in wishes or n in about] or [*found.versions][:1]
    shown = _as_yaml({n: found.versions[n] for n in named})
    without = f" without {', '.join(found.dropped)}" if found.dropped else ""
    kept = [n for n in wishes if n not in found.changed and n not in found.dropped]
    keeps = f" (keeps {', '.join(kept)})" if kept and not without else ""
    return f"{shown}{without}{keeps}"


def _as_yaml(chosen: Mapping[str, str]) -> str:
    """Write versions as lab.yaml has them, on one line."""
    parts = {n: f'{n}: "{v}"' for n, v in chosen.items()}
    own = [text for n, text in parts.items() if key(n) == n]
    below = [text for n, text in parts.items() if key(n) != n]
    return ", ".join([*own, *([f"versions: {{{', '.join(below)}}}"] if below else [])])


def key(name: str) -> str:
    """Give the key of lab.yaml that asks for a component's version."""
    return name if name in {"kubernetes", "guest", "provider", "supply"} else f"versions.{name}"
