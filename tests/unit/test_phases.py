"""How a list of phases is run, told and stopped; and how a wait ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from labwright import lock, spec
from labwright.errors import BootError, ConvergeError, Finding, LabError, SupplyError
from labwright.events import Event
from labwright.locate import read_lock, read_plan
from labwright.model import Plan
from labwright.phases.base import Run, run_all, wait_for
from labwright.phases.bundling import Collect, Pack, entries
from labwright.phases.export import _link
from labwright.phases.fetch import Fetch, folders, stock
from labwright.phases.preflight import open_bundle, to_build
from labwright.phases.render_files import RenderFiles, WriteLock, write_lock
from labwright.tools import host
from tests.fakes import DEBIAN, LIBVIRT, STOCK, Recorder, online, planned, run_of, upstream


def nothing(_run: Run) -> None:
    """Do nothing."""


@dataclass
class Step:
    """A phase that does what it is given."""

    name: str
    do: Callable[[Run], None] = nothing
    reason: str | None = None
    ran: list[str] = field(default_factory=list)

    def title(self, run: Run) -> str:
        return f"Do {self.name}"

    def skip(self, run: Run) -> str | None:
        return self.reason

    def outline(self, run: Run) -> list[str]:
        return []

    def execute(self, run: Run) -> None:
        self.ran.append(self.name)
        self.do(run)


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def run(tmp_path: Path, sink: Recorder) -> Run:
    return run_of(tmp_path, sink=sink)


def told(sink: Recorder) -> list[tuple[str, str, str, int, int]]:
    return [(e.kind, e.text, e.phase, e.step, e.steps) for e in sink.events]


def raising(error: BaseException) -> Callable[[Run], None]:
    def do(_run: Run) -> None:
        raise error

    return do


def test_a_bundle_of_a_lab_on_another_box_holds_ours_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "is_debian_12", lambda: True)
    raw = {"provider": "libvirt", "guest": "debian-12", "kubernetes": "1.36"}
    plan = upstream(raw, LIBVIRT)
    assert plan.box is not None
    assert not plan.own_box
    run = run_of(tmp_path, plan)
    held = entries(run)
    assert "box-libvirt" in held
    # What it is made from stays here.
    assert "machine-root" not in held
    own = planned({"provider": "libvirt"}, LIBVIRT)
    assert held["box-libvirt"][1] == own.keys["box-libvirt"]
    assert [name for name in entries(run_of(tmp_path, own)) if name.startswith("box-")] == [
        "box-libvirt"
    ]
    monkeypatch.setattr(host, "is_debian_12", lambda: False)
    assert "box-libvirt" not in entries(run)


def test_phases_are_numbered_and_told(run: Run, sink: Recorder) -> None:
    def work(run: Run) -> None:
        run.say("half")
        run.step("small")
        run.tool("line")
        run.conclude("3 things")

    run_all([Step("one", work), Step("two", reason="all there"), Step("three")], run)
    assert told(sink) == [
        ("start", "Do one", "one", 1, 3),
        ("say", "half", "one", 1, 3),
        ("step", "small", "one", 1, 3),
        ("tool", "line", "one", 1, 3),
        ("done", "3 things", "one", 1, 3),
        ("start", "Do two", "two", 2, 3),
        ("skip", "all there", "two", 2, 3),
        ("start", "Do three", "three", 3, 3),
        ("done", "", "three", 3, 3),
    ]
    assert run.summary == {"one": "3 things"}


def test_only_an_end_has_a_time(run: Run, sink: Recorder) -> None:
    run_all([Step("one"), Step("two", reason="x")], run)
    timed = {e.kind for e in sink.events if e.seconds is not None}
    assert timed == {"done", "skip"}
    assert all(e.seconds >= 0 for e in sink.events if e.seconds is not None)


def test_a_skipped_phase_does_not_run(run: Run) -> None:
    step = Step("one", reason="")
    run_all([step], run)
    assert step.ran == []


def test_the_first_error_ends_the_run_and_is_raised_again(run: Run, sink: Recorder) -> None:
    error = BootError(Finding("boot.x", "error", "no"), ["last", "words"])
    last = Step("three")
    with pytest.raises(BootError) as caught:
        run_all([Step("one"), Step("two", raising(error)), last], run)
    assert caught.value is error
    assert last.ran == []
    assert told(sink)[-1] == ("failed", "Do two", "two", 2, 3)
    assert sink.events[-1].data == {"details": ["last", "words"]}
    assert sink.events[-1].seconds is not None


def test_an_error_of_skip_is_a_failure_too(run: Run, sink: Recorder) -> None:
    @dataclass
    class Unsure(Step):
        def skip(self, run: Run) -> str | None:
            raise ConvergeError(Finding("x", "error", "no"))

    with pytest.raises(ConvergeError):
        run_all([Unsure("one")], run)
    assert [e.kind for e in sink.events] == ["start", "failed"]


def test_ctrl_c_is_told_and_raised_again(run: Run, sink: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_all([Step("one", raising(KeyboardInterrupt())), Step("two")], run)
    assert told(sink)[-1] == ("failed", "interrupted", "one", 1, 2)
    assert sink.events[-1].seconds is not None


def test_a_mistake_of_ours_is_not_dressed_up(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run_all([Step("one", raising(ZeroDivisionError()))], run)


def test_a_warning_stops_nothing(run: Run, sink: Recorder) -> None:
    finding = Finding("x", "warning", "careful")
    run_all([Step("one", lambda run: run.finding(finding))], run)
    assert sink.events[1] == Event("finding", phase="one", finding=finding)
    assert sink.events[-1].kind == "done"


def test_the_plan_is_settled_once(run: Run) -> None:
    with pytest.raises(RuntimeError, match="before preflight"):
        _ = run.plan
    plan = planned()
    run.settle(plan)
    assert run.plan is plan
    with pytest.raises(RuntimeError, match="settled already"):
        run.settle(plan)


def test_a_made_lab_has_no_spec(run: Run) -> None:
    with pytest.raises(RuntimeError, match="not on a spec"):
        _ = run.spec


def wait(probe: Callable[[], tuple[bool, str]], deadline: float) -> None:
    wait_for("the node", probe, deadline, BootError, interval=0.001)


def test_a_wait_ends_with_the_first_yes() -> None:
    answers = iter([(False, "a"), (False, "b"), (True, "c"), (False, "never asked")])
    wait(lambda: next(answers), 60)
    assert next(answers) == (False, "never asked")


def test_a_wait_that_ends_badly_names_the_last_thing_seen() -> None:
    seen = iter(range(10**9))
    with pytest.raises(BootError) as caught:
        wait(lambda: (False, f"state {next(seen)}"), 0.02)
    (finding,) = caught.value.findings
    assert finding.id == "wait.deadline"
    assert "the node did not come about" in finding.what
    assert finding.why == f"last seen: state {next(seen) - 1}"


def test_a_wait_without_time_still_asks_once() -> None:
    wait(lambda: (True, ""), 0)
    with pytest.raises(LabError, match="last seen: nothing"):
        wait(lambda: (False, "nothing"), -1)


# --- what a supply holds


def put(run: Run, key: str, **files: str) -> None:
    """Have an entry in the store, with these files: a.json is written a_json."""

    def build(_work: Path, out: Path) -> None:
        for name, text in files.items():
            (out / name.replace("_", ".")).write_text(text)

    run.tools.store.ensure(key, build)


def test_what_is_not_built_yet_is_not_known(tmp_path: Path) -> None:
    for plan in (planned(), planned({"supply": "upstream"}, online(DEBIAN))):
        assert stock(run_of(tmp_path, plan)) == lock.Stocked()


def test_what_was_built_says_itself_what_it_is(tmp_path: Path) -> None:
    run = run_of(tmp_path, planned())
    put(run, run.plan.keys["apt"], versions_json=json.dumps(STOCK.packages))
    put(run, run.plan.keys["images"], images_json=json.dumps(STOCK.images))
    assert stock(run) == STOCK
    assert folders(run) == {
        name: run.tools.store.path(run.plan.keys[name]) for name in ("apt", "images")
    }


def test_what_vendors_answered_is_what_the_supply_holds(tmp_path: Path) -> None:
    plan = upstream()
    found = stock(run_of(tmp_path, plan))
    assert plan.pins
    assert found.packages == {name: pin.version for name, pin in plan.pins.packages.items()}
    pause = plan.pins.images["pause"]
    assert found.images["pause"] == {"ref": pause.ref, "digest": pause.digest, "size": pause.size}
    assert folders(run_of(tmp_path, plan)) == {}


# --- lab.lock


def locking(root: Path, plan: Plan, *, strict: bool = False) -> Run:
    path = root / "class.lock"
    return run_of(root, plan, lock_file=path, locked=read_lock(path), strict=strict)


def test_a_lock_is_written_once(tmp_path: Path) -> None:
    first = locking(tmp_path, upstream())
    assert write_lock(first) == ([str(tmp_path / "class.lock")], [])
    assert write_lock(locking(tmp_path, upstream())) == ([], [])
    assert read_lock(tmp_path / "class.lock").pins == upstream().pins


def test_what_changes_in_a_lock_is_told(tmp_path: Path) -> None:
    write_lock(locking(tmp_path, upstream()))
    run = locking(tmp_path, upstream({"workers": 1}))
    # An upgrade has forgotten all that it held: what counts is the file.
    run.locked = lock.Locked()
    changed, (line,) = write_lock(run)
    assert changed == [str(tmp_path / "class.lock")]
    assert line.startswith("class.lock: nodes.w2: ")


def test_what_changes_in_a_lock_is_said_by_its_phase(tmp_path: Path) -> None:
    write_lock(locking(tmp_path, upstream()))
    run = locking(tmp_path, upstream({"workers": 1}))
    run.wanted = spec.build({})
    run_all([RenderFiles()], run)
    (line,) = run.sink.said()  # type: ignore[attr-defined]
    assert line.startswith("class.lock: nodes.w2: ")


def test_a_strict_run_writes_no_other_lock(tmp_path: Path) -> None:
    write_lock(locking(tmp_path, upstream()))
    before = (tmp_path / "class.lock").read_bytes()
    assert write_lock(locking(tmp_path, upstream(), strict=True)) == ([], [])
    with pytest.raises(SupplyError) as caught:
        write_lock(locking(tmp_path, upstream({"workers": 1}), strict=True))
    assert caught.value.findings[0].id == "supply.drift"
    assert (tmp_path / "class.lock").read_bytes() == before


def test_a_strict_run_leaves_the_lock_s_bytes(tmp_path: Path) -> None:
    path = tmp_path / "class.lock"
    write_lock(locking(tmp_path, upstream()))
    # Another Labwright bakes another image, and somebody has added a remark: the same lab.
    other = {**read_lock(path).content, "node_image": "labwright/node:0", "store": {}}
    path.write_text(f"# of class 7\n{lock.text(other)}")
    before = path.read_bytes()
    run = locking(tmp_path, upstream(), strict=True)
    run.wanted = spec.build({})
    run_all([RenderFiles()], run)
    assert path.read_bytes() == before
    assert run.summary == {"render": "Vagrantfile, inventory/hosts.yml, tls/ca.crt"}
    assert write_lock(locking(tmp_path, upstream())) == ([str(path)], [])
    assert path.read_bytes() != before


def test_a_made_lab_without_lab_yaml_writes_no_lock(tmp_path: Path) -> None:
    assert write_lock(run_of(tmp_path, upstream())) == ([], [])
    assert [*tmp_path.iterdir()] == []


def test_the_lock_is_all_that_its_phase_writes(tmp_path: Path) -> None:
    run = locking(tmp_path, upstream())
    run_all([WriteLock()], run)
    assert [p.name for p in tmp_path.iterdir()] == ["class.lock"]
    assert run.summary == {"lock": "written"}
    again = locking(tmp_path, upstream())
    run_all([WriteLock()], again)
    assert again.summary == {"lock": "nothing changed"}


def test_files_of_a_lab_are_written_with_its_lock(tmp_path: Path) -> None:
    plan = upstream()
    run = locking(tmp_path, plan)
    run.wanted = spec.build({}, str(tmp_path / "class.yaml"))
    run_all([RenderFiles()], run)
    names = [str(tmp_path / "class.lock"), "Vagrantfile", "inventory/hosts.yml", "tls/ca.crt"]
    assert run.summary == {"render": ", ".join(names)}
    assert read_plan(run.workdir) == plan
    assert run.workdir.source() == str(tmp_path / "class.yaml")
    assert (run.workdir.path / "lab.lock").read_text() == (tmp_path / "class.lock").read_text()


def test_a_strict_run_that_differs_writes_nothing_at_all(tmp_path: Path) -> None:
    write_lock(locking(tmp_path, upstream()))
    run = locking(tmp_path, upstream({"workers": 1}), strict=True)
    run.wanted = spec.build({})
    with pytest.raises(SupplyError):
        run_all([RenderFiles()], run)
    assert not run.workdir.exists


# --- bundles


@pytest.mark.parametrize("made", [planned, upstream], ids=["packages", "upstream"])
def test_what_a_bundle_holds_has_its_place_in_the_store(
    tmp_path: Path, made: Callable[[], Plan]
) -> None:
    plan = made()
    found = entries(run_of(tmp_path, plan))
    assert list(found) == ["base", "apt", "images", "host", "helm"]
    for name, (artifact, key) in found.items():
        assert (artifact.id, key.rpartition("-")[0]) == (name, name)
        assert plan.keys.get(name, key) == key


def test_other_answers_of_vendors_are_collected_anew(tmp_path: Path) -> None:
    plan = upstream()
    assert plan.pins
    images = {**plan.pins.images, "pause": replace(plan.pins.images["pause"], digest="sha256:0")}
    other = replace(plan, pins=replace(plan.pins, images=images))
    one, two = (entries(run_of(tmp_path, p)) for p in (plan, other))
    assert {name for name in one if one[name][1] != two[name][1]} == {"images"}


def collected_in(root: Path, plan: Plan) -> Run:
    """A run on a lab that was made, with all that its bundle holds in the store."""
    run = run_of(root, plan)
    for name, (_artifact, key) in entries(run).items():
        put(run, key, content=f"content of {name}", versions_json="{}", images_json="{}")
    run.workdir.write({"lab.lock": lock.text(lock.content(plan, stock(run)))})
    return run


def test_what_is_in_the_store_is_not_collected_again(tmp_path: Path) -> None:
    run = collected_in(tmp_path, upstream())
    assert Collect().skip(run) == "the store has it all"
    other = run_of(tmp_path / "other", upstream())
    assert Collect().skip(other) is None
    assert len(Collect().outline(other)) == 5


@pytest.mark.parametrize("made", [planned, upstream], ids=["packages", "upstream"])
@pytest.mark.parametrize("form", ["bundle", "bundle.tar.zst"])
def test_a_bundle_carries_a_lab_to_another_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[], Plan], form: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = collected_in(tmp_path / "here", made())
    run_all([Collect(), Pack(tmp_path / form)], here)
    assert "sha256 " in here.summary["pack"]

    raw = {"supply": f"bundle:{tmp_path / form}"}
    there = run_of(tmp_path / "there", wanted=spec.build(raw))
    bundled = open_bundle(there)
    assert bundled
    assert bundled.stored == {}
    far = replace(DEBIAN, upstream={}, go_modules=False, os="ubuntu", os_version="24.04")
    plan = planned(raw, far, bundled=bundled)
    assert (plan.supply, plan.origin) == ("bundle", here.plan.origin)
    assert plan.versions == here.plan.versions
    there.settle(plan)
    assert [a.id for a in to_build(plan, there.tools)] == ["apt", "base", "helm", "host", "images"]
    run_all([Fetch()], there)
    for name, (_artifact, key) in entries(here).items():
        path = there.tools.store.path(plan.keys[name]) / "content"
        assert path.read_text() == f"content of {name}", key
    assert Fetch().skip(there) == "the store has it all"


def test_a_bundle_takes_from_the_store_what_is_there(tmp_path: Path) -> None:
    run = collected_in(tmp_path, upstream())
    run_all([Collect(), Pack(tmp_path / "bundle")], run)
    again = run_of(tmp_path, wanted=spec.build({"supply": f"bundle:{tmp_path / 'bundle'}"}))
    bundled = open_bundle(again)
    assert bundled
    assert bundled.stored == {name: key for name, (_artifact, key) in entries(run).items()}
    assert to_build(planned({}, bundled=bundled), again.tools) == []


@pytest.mark.parametrize("change", ["flipped", "exchanged"])
def test_a_bundle_that_changes_after_planning_is_refused(tmp_path: Path, change: str) -> None:
    target = tmp_path / "bundle"
    run_all([Pack(target)], collected_in(tmp_path / "one", upstream()))
    there = run_of(tmp_path / "there", wanted=spec.build({"supply": f"bundle:{target}"}))
    there.settle(planned({}, bundled=open_bundle(there)))
    if change == "flipped":
        (content,) = (target / "apt").rglob("content")
        content.chmod(0o644)
        content.write_bytes(b"c0ntent of apt")
    else:
        shutil.rmtree(target)
        other = run_of(tmp_path / "two", upstream())
        for _artifact, key in entries(other).values():
            put(other, key, content="sound, and another")
        other.workdir.write({"lab.lock": "name: lab\n"})
        run_all([Pack(target)], other)
    with pytest.raises(SupplyError) as caught:
        run_all([Fetch()], there)
    assert (caught.value.findings[0].id == "supply.bundle-changed") is (change == "exchanged")
    assert not there.tools.store.has(there.plan.keys["apt"])


# --- export


def test_a_link_follows_what_the_store_has_now(tmp_path: Path) -> None:
    link = tmp_path / "kubectl"
    for name in ("one", "two", "two"):
        (tmp_path / name).write_text(name)
        _link(tmp_path / name, link)
        assert link.read_text() == name
    _link(tmp_path / "nowhere", link)
    assert link.read_text() == "two"


def test_a_line_that_was_written_over_is_told_as_it_ended(run: Run, sink: Recorder) -> None:
    run.tool("\r\x1b[KProgress: 1%\r\x1b[KProgress: 100%\r\x1b[K==> cp1: Creating image\r")
    run.tool("plain")
    told = [event.text for event in sink.events if event.kind == "tool"]
    assert told == ["\x1b[K==> cp1: Creating image", "plain"]
