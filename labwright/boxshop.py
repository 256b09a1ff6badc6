"""The box commands: build boxes of our own, hand them on, and keep Vagrant's list of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from labwright import catalog, keys
from labwright.boxes import OWNER, own_name, own_version
from labwright.catalog import Guest
from labwright.errors import Finding, HostError, SpecError, errors
from labwright.events import Event
from labwright.lab import Lab, Options
from labwright.locate import lock_of, read_lock, read_spec
from labwright.model import Artifact, HostFacts, Tool
from labwright.phases.bake_machine import bake_machine, identity
from labwright.phases.base import Run
from labwright.phases.fetch import Fetch
from labwright.phases.preflight import resolved, to_build, with_host_packages
from labwright.recipes import Job
from labwright.recipes import build as make
from labwright.supplies.base import OWN_BOXES, not_buildable, own_box, own_image
from labwright.tools import boxes, host, workdir
from labwright.tools.boxes import PACKAGE, Entry, Offer
from labwright.tools.download import Http

GUEST = "debian-12"
FORMS = (*OWN_BOXES, "docker")
IMAGE = "image.tar"


@dataclass(frozen=True, slots=True)
class Made:
    """A box that was built; ``version`` is that of Vagrant's, empty for an image of Docker's."""

    name: str
    version: str
    provider: str
    path: Path
    sha256: str


class Shop:
    """Boxes, whatever lab there is."""

    def __init__(self, options: Options) -> None:
        """Take the tools of a lab; the lab itself matters only where it is named."""
        self.options = options
        self.lab = Lab(options)
        self.run = Run(
            workdir=self.lab.workdir,
            tools=self.lab.tools,
            sink=options.sink,
            consent=lambda question: options.yes or options.ask(question),
        )

    def build(self, providers: Sequence[str], guest: str) -> list[Made]:
        """Build boxes into the store, those that are not there. Raises SpecError, SupplyError."""
        known = self._guest(guest)
        artifacts = {a.id: a for provider in providers for a in _artifacts(known, provider)}
        places = keys.keys(artifacts.values())
        store = self.run.tools.store
        lacking = _lacking(artifacts, [i for i, key in places.items() if store.has(key)])
        if lacking:
            if found := errors(not_buildable(host.facts(self.run.tools.shell), "boxes are built")):
                raise HostError(found)
            with_host_packages(self.run, lacking)
        for artifact in lacking:
            self._make(artifact, places)
        return [self._made(known, p, places[f"box-{p}"]) for p in providers]

    def bake(self, providers: Sequence[str]) -> list[Made]:
        """Build boxes of what this lab is made of: packages and images are inside.

        Raises LabError: Docker does not run, or what the lab needs cannot be had.
        """
        made = []
        for provider in OWN_BOXES:
            if provider in providers:
                run = replace(self.run)
                asked = read_spec(self.options.root, self.options.lab)
                run.wanted = replace(asked, provider=provider, box=None)
                run.lock_file = lock_of(self.options.root, asked)
                run.locked = read_lock(run.lock_file)
                plan = resolved(run, _able(host.facts(run.tools.shell)))
                with_host_packages(run, to_build(plan, run.tools))
                run.settle(plan)
                Fetch().execute(run)
                path = bake_machine(run)
                name, version = f"{OWNER}/lab-{plan.name}", own_version(identity(run))
                made.append(Made(name, version, provider, path, boxes.digest(path)))
        if not made:
            what = "containers as nodes start from an image that lab.up bakes"
            fix = f"--provider={','.join(OWN_BOXES)}"
            raise SpecError(Finding("spec.nothing-to-bake", "error", what, fix=fix))
        return made

    def hand_on(self, made: Iterable[Made], folder: Path, url: str = "") -> list[Path]:
        """Copy boxes into a folder, with a catalogue that Vagrant reads; give what was written.

        ``url`` is where the folder will be served; without it the catalogue names the folder.
        """
        written: list[Path] = []
        offers: dict[str, list[Offer]] = {}
        for one in made:
            stem = one.name.rpartition("/")[2]
            suffix = "box" if one.version else "tar"
            target = folder / f"{stem}-{one.provider}.{suffix}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(one.path, target)
            except OSError as error:
                raise workdir.refused(error, target) from error
            written.append(target)
            if one.version:
                place = f"{url.rstrip('/')}/{target.name}" if url else target.resolve().as_uri()
                offer = Offer(one.version, one.provider, place, one.sha256)
                offers.setdefault(one.name, []).append(offer)
        for name, new in offers.items():
            path = folder / f"{name.rpartition('/')[2]}.json"
            content = boxes.catalogue(name, "nodes of Labwright's labs", [*_kept(path, new), *new])
            workdir.write(path, boxes.dump(content))
            written.append(path)
        return written

    def add(self, source: str, provider: str, name: str) -> list[str]:
        """Add boxes to Vagrant's list; give ``name version (provider)`` of each.

        ``source`` is a folder of ``box.build --to``, a catalogue, a .box file, or empty for what
        the store has of our own. Raises SpecError, SupplyError.
        """
        before = set(boxes.had())
        path = Path(source).expanduser()
        if not source:
            if provider not in {"", *OWN_BOXES}:
                raise SpecError(_no_box_for(provider, OWN_BOXES))
            built = [b for b in self._stored() if provider in {"", b.provider}]
            if not built:
                raise SpecError(_nothing("no box of our own is built yet", "./invokew box.build"))
            for one in built:
                offer = Offer(one.version, one.provider, one.path.as_uri(), one.sha256)
                self._add(one.name, [offer])
        elif path.is_dir():
            self._from_folder(path, provider)
        elif urlsplit(source).path.endswith(".json"):
            self._from_catalogue(source, provider)
        elif (file := boxes.file_of(source)) and not file.is_file():
            what = f"there is no file {path}"
            raise SpecError(_nothing(what, "name a .box file, a catalogue, or a folder with one"))
        else:
            self._plain(source, provider, name)
        found = sorted(set(boxes.had()) - before, key=str)
        return [f"{box.name} {box.version} ({box.provider})" for box in found]

    def listed(self, *, everything: bool) -> list[tuple[Entry, list[str]]]:
        """Give the boxes in Vagrant's list, ours or all, and the labs with machines of each."""
        users = boxes.users()
        return [
            (entry, [_lab_at(place) for place in users.get(entry.box, [])])
            for entry in boxes.listed()
            if everything or entry.box.name.startswith(f"{OWNER}/")
        ]

    def prune(self) -> list[Entry]:
        """Remove those of our own boxes that no machine was made from, after asking; give them.

        libvirt's own copy in its pool goes with them, unless a disk stands on it.

        Raises HostError: not confirmed.
        """
        unused = [entry for entry, labs in self.listed(everything=False) if not labs]
        if not unused:
            return []
        names = ", ".join(f"{e.box.name} {e.box.version} ({e.box.provider})" for e in unused)
        size = sum(entry.size for entry in unused) // 10**6
        if not self.run.consent(f"Remove {names} from Vagrant's list: {size} MB?"):
            fix = "answer yes, or give --yes"
            what = "the boxes were left as they are"
            why = f"not confirmed for {names}: {size} MB"
            raise HostError(Finding("host.no-consent", "error", what, why, fix))
        for entry in unused:
            boxes.remove(self.run.tools.shell, entry.box, self._tool)
            if entry.box.provider == "libvirt":
                self.run.tools.libvirt.remove_base(entry.box.name)
        return unused

    def _guest(self, name: str) -> Guest:
        known = catalog.load().guests
        if name not in known:
            what = f"there is no recipe for a box of {name!r}"
            fix = f"take one of {', '.join(known)}"
            raise SpecError(Finding("spec.unknown-guest", "error", what, fix=fix))
        return known[name]

    def _make(self, artifact: Artifact, places: Mapping[str, str]) -> None:
        run, store = self.run, self.run.tools.store
        inputs = {need: store.path(places[need]) for need in artifact.needs}

        def build(work: Path, out: Path) -> None:
            run.say(artifact.title)
            make(Job(artifact, work, out, inputs, run.tools.shell, run.say))

        store.ensure(places[artifact.id], build)

    def _made(self, guest: Guest, provider: str, key: str) -> Made:
        file = IMAGE if provider == "docker" else PACKAGE
        path = self.run.tools.store.path(key) / file
        version = "" if provider == "docker" else own_version(key)
        return Made(own_name(guest), version, provider, path, boxes.digest(path))

    def _stored(self) -> list[Made]:
        found = []
        for guest in catalog.load().guests.values():
            for provider in OWN_BOXES:
                key = keys.keys(own_box(guest, provider))[OWN_BOXES[provider]]
                if self.run.tools.store.has(key):
                    found.append(self._made(guest, provider, key))
        return found

    def _from_folder(self, folder: Path, provider: str) -> None:
        """Add what the catalogues of a folder name, from that folder, wherever it was made."""
        found = [*folder.glob("*.json")]
        for path in found:
            name, offers = _read(path)
            mine = [
                replace(offer, url=beside.resolve().as_uri())
                for offer in offers
                if provider in {"", offer.provider}
                and (beside := folder / Path(unquote(urlsplit(offer.url).path)).name).is_file()
            ]
            if not mine:
                what = f"none of the boxes that {path} names is beside it"
                raise SpecError(_nothing(what, "bring the .box files too, or name the catalogue"))
            self._add(name, mine)
        if not found:
            what = f"{folder} has no catalogue (.json)"
            raise SpecError(_nothing(what, "./invokew box.build --to makes such a folder"))

    def _from_catalogue(self, source: str, provider: str) -> None:
        if urlsplit(source).scheme in boxes.PORTS:
            with Http() as http:
                text = http.get(source).decode(errors="replace")
        else:
            text = _text(Path(source).expanduser())
        name, offers = _parsed(text, source)
        there = dict.fromkeys(offer.provider for offer in offers)
        wanted = [one for one in there if provider in {"", one}]
        if not wanted:
            what = f"{source} has {name} for {', '.join(there) or 'nobody'}, not for {provider}"
            raise SpecError(_nothing(what, "take one of those providers"))
        for one in wanted:
            boxes.add(self.run.tools.shell, source, one, self._tool)

    def _add(self, name: str, offers: Sequence[Offer]) -> None:
        had = {(box.name, box.version, box.provider) for box in boxes.had()}
        with tempfile.TemporaryDirectory(prefix="labwright-") as folder:
            path = Path(folder, "catalog.json")
            path.write_text(boxes.dump(boxes.catalogue(name, "", offers)), encoding="utf-8")
            for offer in offers:
                if (name, offer.version, offer.provider) not in had:
                    shell = self.run.tools.shell
                    kind, version = offer.provider, offer.version
                    what = f"{name} {version} ({kind}) from {offer.url}"
                    boxes.add(shell, str(path), kind, self._tool, version=version, what=what)

    def _plain(self, source: str, provider: str, name: str) -> None:
        if not (name and provider):
            what = f"{source} says neither its name nor its provider"
            fix = "give both: box.add --source=FILE --name=me/box --provider=libvirt"
            raise SpecError(Finding("spec.box-nameless", "error", what, fix=fix))
        boxes.add(self.run.tools.shell, source, provider, self._tool, name=name)

    def _tool(self, line: str) -> None:
        self.options.sink(Event("tool", line))


def _able(facts: HostFacts) -> HostFacts:
    """Take a host for one that runs any provider and has no box: where a box is built for others.

    What a box is made of does not depend on which machines this computer can start.
    """
    tools = {name: Tool("") for name in ("VBoxManage", "virsh")}
    return replace(
        facts,
        vboxdrv=True,
        kvm=True,
        tools={**facts.tools, **tools},
        boxes=(),
        box_sources={"": "was not asked, as a box is built"},
    )


def _artifacts(guest: Guest, provider: str) -> tuple[Artifact, ...]:
    for known in OWN_BOXES:
        if known == provider:
            return own_box(guest, known)
    if provider != "docker":
        raise SpecError(_no_box_for(provider, FORMS))
    if guest.name != GUEST:
        what = f"containers as nodes are {GUEST} alone"
        raise SpecError(Finding("spec.unknown-guest", "error", what, fix=f"--guest {GUEST}"))
    return own_image(guest)


def _lacking(artifacts: Mapping[str, Artifact], there: Collection[str]) -> list[Artifact]:
    """Give what is to be made: the boxes that are not there, after what they need."""
    goals = [a for a in artifacts.values() if a.recipe == "box" and a.id not in there]
    needed = {need for goal in goals for need in goal.needs}
    return [a for a in artifacts.values() if a in goals or (a.id in needed and a.id not in there)]


def _kept(path: Path, new: Sequence[Offer]) -> list[Offer]:
    """Give what an earlier catalogue offers beside the new: one version for each provider."""
    if not path.is_file():
        return []
    taken = {offer.provider for offer in new}
    return [offer for offer in _read(path)[1] if offer.provider not in taken]


def _read(path: Path) -> tuple[str, list[Offer]]:
    return _parsed(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(_nothing(f"{path} cannot be read: {error}", "name a catalogue")) from error


def _parsed(text: str, where: str) -> tuple[str, list[Offer]]:
    """Give a catalogue's name and what it offers. Raises SpecError: it is none."""
    try:
        raw = json.loads(text)
        return str(raw["name"]), [
            Offer(version["version"], p["name"], p["url"], p.get("checksum", ""))
            for version in raw["versions"]
            for p in version["providers"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"{where} is not a catalogue of boxes"
        fix = "./invokew box.build --to FOLDER writes one"
        raise SpecError(replace(_nothing(what, fix), why=repr(error)[:200])) from error


def _no_box_for(provider: str, known: Iterable[str]) -> Finding:
    what, fix = f"there is no box for {provider!r}", f"take one of {', '.join(known)}"
    return Finding("spec.unknown-provider", "error", what, fix=fix)


def _nothing(what: str, fix: str) -> Finding:
    return Finding("spec.no-box", "error", what, fix=fix)


def _lab_at(place: str) -> str:
    """Name the user of a box by the folder of its Vagrantfile: ``.lab/<name>`` is a lab's."""
    path = Path(place)
    return path.name if path.parent.name == ".lab" else place
