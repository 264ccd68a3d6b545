"""What must hold of every history, in one place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from services.dispatch import calls
from services.escalation import whistle
from services.escalation.firing import SLACK_SECONDS
from services.grid import deadlines, whistles
from services.grid.clock import Instant, plus
from services.grid.events import Event
from services.grid.tokens import Address, Stage, Token
from tests.simulator.county import LEVELS
from tests.simulator.world import TAKES, World


def all_hold(world: World) -> None:
    """All of them, once the bus is quiet; dead desks have not read their queues."""
    agreement(world)
    clocks(world)
    armed(world)
    entries_end(world)
    identities(world)
    assigned_once(world)
    assigned_to_who_was_on_duty(world)
    fired_once(world)
    told_once_to_each_holder(world)
    moved_once(world)
    requests_are_answered(world)
    not_returned_for_ever(world)
    notes_are_kept(world)
    acts_are_kept(world)
    what_passed_is_counted(world)
    who_accepted_goes_on(world)
    nothing_moves_once_resolved(world)
    nobody_short_changed(world)
    answers_in_time_count(world)
    nobody_waits_for_a_dead_desk(world)
    under_the_rules_of_their_place(world)
    closed_once(world)
    told_of_once(world)
    answers_are_waited_for(world)
    reopened_too_often(world)
    called_units_agree(world)
    units_are_waited_for(world)
    units_are_told_once(world)
    units_that_came_in_time_count(world)
    merged_into_the_oldest(world)
    followers_end_with_their_lead(world)
    only_who_follows_is_named(world)
    links_are_mutual(world)
    watchers_agree(world)
    steps_come_first(world)
    authority_was_given(world)
    systems_are_answered(world)


def agreement(world: World) -> None:
    """Register and custody show the same state, and so does the docket entry that counts.

    What the custodian takes back of a clock that runs ahead, it takes back for itself alone.
    """
    register = world.nodes["intake"].store.documents()
    custody = world.nodes["escalation"].store.documents()
    assert register.keys() == custody.keys()
    for case, record in register.items():
        held = custody[case]
        assert record["state"] == held["state"], case
        assert record["facts"] == held["facts"], case
        assert record["late_custody"] == held["late_custody"], case
        level = held["state"]["address"]["level"]
        if level in world.dead:
            continue
        token = Token.of(held["state"]["token"])
        entry = world.nodes[level].store.documents()[f"{case}:{token.round}.{token.hop}"]
        if token.stage == Stage.WITHDRAWN:
            # What the desk did before it heard of that counts no more.
            continue
        assert entry["state"] == held["state"], case


def clocks(world: World) -> None:
    """Both clocks of a case are the same everywhere, and every entry knows when its own began."""
    register = world.nodes["intake"].store.documents()
    for case, held in world.nodes["escalation"].store.documents().items():
        assert register[case]["state"]["clocks"] == held["state"]["clocks"], case
    for level in LEVELS:
        for key, entry in entries(world, level):
            if entry["state"] is not None:
                own = register[entry["case"]]["state"]["clocks"]["case"]["started_at"]
                assert entry["state"]["clocks"]["case"]["started_at"] == own, key


def armed(world: World) -> None:
    """No open case is without a deadline at the custodian, and no ended one has one."""
    for case, document in world.nodes["escalation"].store.documents().items():
        held = document["state"]["token"]["stage"] == "held"
        assert (document["next_due"] is not None) == held, case


def entries_end(world: World) -> None:
    """Every docket entry ended, but the one of the hop that holds the case."""
    custody = world.nodes["escalation"].store.documents()
    for level in LEVELS:
        if level in world.dead:
            continue
        for key, entry in entries(world, level):
            token = Token.of(custody[entry["case"]]["state"]["token"])
            current = (entry["round"], entry["hop"]) == (token.round, token.hop)
            live = current and token.stage == Stage.HELD
            assert (entry["status"] == "live") == live, key
            if current and token.stage >= Stage.RESOLVED:
                assert entry["ended"] == "resolved", key
            elif current and token.stage == Stage.WITHDRAWN:
                assert entry["ended"] == "custody", key
            elif not current:
                # The resolution of a round before stays, though it was not the last word.
                before = ["resolved"] if entry["round"] < token.round else []
                assert entry["ended"] in ("custody", "resolution", *before), key


def identities(world: World) -> None:
    """The same id always means the same event, and the same decision the same id."""
    bodies: dict[str, bytes] = {}
    for sent in world.published:
        assert bodies.setdefault(sent.event.id, sent.body) == sent.body, sent.event.type


def assigned_once(world: World) -> None:
    """Who is on duty is decided once for each time that a case comes to a desk."""
    decided: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for event in _events(world):
        if event.type == "case.assigned":
            token = Token.of(event.data["state"]["token"])
            decided[event.subject, token.round, token.hop].add(event.id)
    for where, ids in decided.items():
        assert len(ids) == 1, where


def assigned_to_who_was_on_duty(world: World) -> None:
    """Whoever a case was given to answered for its address at that time."""
    for event in _events(world):
        if event.type == "case.assigned":
            state, facts = event.data["state"], event.data["case"]
            address, assigned = Address.of(state["address"]), state["assigned"]
            profile = world.atlas.rules_for(facts)
            there, _why = profile.on_duty(address, world.atlas.directory, assigned["at"])
            assert assigned["officer"] in ([found.id for found in there] or [None]), event.subject


def what_passed_is_counted(world: World) -> None:
    """Each desk knows which of its deadlines passed, for its rates."""
    passed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in _events(world):
        if event.type == "case.deadline_passed":
            token = event.data["state"]["token"]
            key = f"{event.subject}:{token['round']}.{token['hop']}"
            level = event.data["state"]["address"]["level"]
            passed[level, key].add(event.data["passed"]["kind"])
    for level in LEVELS:
        if level not in world.dead:
            for key, entry in entries(world, level):
                assert set(entry.get("passed", ())) == passed[level, key], key


def who_accepted_goes_on(world: World) -> None:
    """A case that was accepted has a deadline to do something, where its rules say so."""
    for case, document in world.nodes["escalation"].store.documents().items():
        state, facts = document["state"], document["facts"]
        if state["token"]["stage"] != "held" or document["history"]:
            continue
        profile = world.atlas.rules_for(facts)
        wanted = deadlines.with_progress(profile, facts, state, world.atlas.holidays)
        assert state["deadlines"] == wanted, case


def fired_once(world: World) -> None:
    """Each deadline of each hop passes once, at one time, and a case leaves a hop once."""
    passed: dict[Any, set[tuple[str, Instant]]] = defaultdict(set)
    for event in _events(world):
        if event.type not in ("case.deadline_passed", "case.escalated"):
            continue
        token = Token.of(event.data["state"]["token"])
        assert token.stage == Stage.HELD
        deadline = event.data.get("passed") or {"kind": "escalated", "due": None}
        what = event.type, deadline["kind"], deadline["due"]
        passed[event.subject, token.round, token.hop, *what].add((event.id, event.time))
    for where, effects in passed.items():
        assert len(effects) == 1, where


def told_once_to_each_holder(world: World) -> None:
    """What has fired fires no more after a hop that left the case with who held it.

    Unless it then climbs: its ladder goes on, where it had ended.
    """
    began: dict[tuple[str, int, int], int] = {}
    climbed: set[tuple[str, int, int]] = set()
    custody = {(event.id, event.type): event for event in _events(world) if event.custody}
    for event in sorted(custody.values(), key=_hop_of):
        case, round_, hop = _hop_of(event)
        stays = event.data.get("previous") == event.data["state"]["address"]
        began[case, round_, hop] = began.get((case, round_, hop - 1), hop) if stays else hop
        if event.type == "case.escalated":
            climbed.add((case, round_, hop - 1))
    told: dict[Any, set[str]] = defaultdict(set)
    for event in _events(world):
        where = _hop_of(event) if "passed" in event.data else None
        if where is None or event.type not in ("case.deadline_passed", "case.reminded"):
            continue
        if event.type == "case.reminded" or where not in climbed:
            passed = event.data["passed"]
            what = tuple(passed.get(name) for name in ("kind", "of", "at", "due"))
            told[where[0], where[1], began.get(where, where[2]), *what].add(event.id)
    for what, ids in told.items():
        assert len(ids) == 1, what


def _hop_of(event: Event) -> tuple[str, int, int]:
    token = Token.of(event.data["state"]["token"])
    return event.subject, token.round, token.hop


def moved_once(world: World) -> None:
    """Each hop begins with one change of custody, one ahead of the hop before."""
    began: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for event in _events(world):
        if event.custody:
            token = Token.of(event.data["state"]["token"])
            began[event.subject, token.round, token.hop].add(event.id)
    for where, ids in began.items():
        assert len(ids) == 1, where


def requests_are_answered(world: World) -> None:
    """What a living desk asked for was granted, and then moved the case on, or refused."""
    granted = {
        event.data["request"]["id"]: Token.of(event.data["state"]["token"])
        for event in _events(world)
        if event.custody and "request" in event.data
    }
    for level in LEVELS:
        if level in world.dead:
            continue
        for key, entry in entries(world, level):
            asked = entry.get("request")
            if asked is None:
                continue
            assert asked["answer"] == ("granted" if asked["id"] in granted else "refused"), key
            if asked["answer"] == "granted":
                token = granted[asked["id"]]
                assert (token.round, token.hop) == (entry["round"], entry["hop"] + 1), key


def not_returned_for_ever(world: World) -> None:
    """A case is sent back as often as its profile lets it be, and then supervised."""
    custody = world.nodes["escalation"].store.documents()
    returned: dict[tuple[str, int], set[str]] = defaultdict(set)
    supervised: set[tuple[str, int]] = set()
    for event in _events(world):
        where = event.subject, event.data["state"]["token"]["round"]
        if event.type == "case.returned":
            returned[where].add(event.id)
        elif event.type == "case.supervised" and event.data["passed"]["kind"] == "returned":
            supervised.add(where)
    for where, ids in returned.items():
        most = world.atlas.profile(custody[where[0]]["facts"]["profile"]).returns.most
        assert len(ids) <= most, where
        assert (where in supervised) == (len(ids) == most), where


def notes_are_kept(world: World) -> None:
    """Every note of a desk was published, and is in its entry."""
    said = {
        event.data["note"]["id"]: (event.subject, event.data["note"])
        for event in _events(world)
        if event.type == "case.noted"
    }
    kept = {
        note["id"]: (entry["case"], note)
        for level in LEVELS
        for _key, entry in entries(world, level)
        for note in entry.get("notes", ())
    }
    assert said == kept


def acts_are_kept(world: World) -> None:
    """What a holder did counts as long as the case is theirs, whatever hop it was done in."""
    since: dict[str, int] = {}
    custody = world.nodes["escalation"].store.documents()
    for case, document in custody.items():
        token = Token.of(document["state"]["token"])
        hops = [item for item in document["seen"] if item["round"] == token.round]
        others = [item["hop"] for item in hops if item["address"] != document["state"]["address"]]
        since[case] = 1 + max(others, default=-1)
    for event in _events(world):
        if "state" not in event.data or event.subject not in custody:
            continue
        then, now = event.data["state"], custody[event.subject]["state"]
        token, current = Token.of(then["token"]), Token.of(now["token"])
        both_held = token.stage == current.stage == Stage.HELD
        if not both_held or token.round != current.round or token.hop < since[event.subject]:
            continue
        assert then["acknowledged"] is None or now["acknowledged"] is not None, event.subject
        assert "progressed_at" not in then or "progressed_at" in now, event.subject
        for name, identity in (("joined", "id"), ("steps", "step")):
            did, kept = (
                {(item[identity], item.get("released") is None) for item in state.get(name, ())}
                for state in (then, now)
            )
            # A unit that was called may have been released since, and no other way round.
            assert all(item in kept or (item[0], False) in kept for item in did), event.subject


def nothing_moves_once_resolved(world: World) -> None:
    """The custodian moves no case in a round in which it knows of a resolution.

    Nor does it forget one: what it knows of a case only ever grows.
    """
    known: dict[str, Token] = {}
    for write in world.nodes["escalation"].store.writes:
        token = Token.of(write.document["state"]["token"])
        before = known.get(write.key)
        known[write.key] = token
        if before is None:
            continue
        assert token >= before, write.key
        if token.round == before.round and before.stage >= Stage.RESOLVED:
            assert not any(event.custody for event in write.events), write.key


def nobody_short_changed(world: World) -> None:
    """A deadline passes only when its holder has had a chance to hear of the case.

    That is the least of ``grace`` and the level's own time, since the custody was published.
    Custodians whose clocks differ may take as much from it as they differ.
    """
    heard: dict[tuple[str, int, int], Instant] = {}
    slowest, fastest = _custodians_ahead(world)
    for event, at, _body in world.published:
        token = Token.of(event.data["state"]["token"])
        where = event.subject, token.round, token.hop
        if event.custody:
            heard.setdefault(where, at)
        if event.type != "case.deadline_passed":
            continue
        facts, state = event.data["case"], event.data["state"]
        profile = world.atlas.rules_for(facts)
        own = deadlines.own_time(profile, facts, Address.of(state["address"]), token.round)
        chance = min(profile.grace, own) + slowest - (fastest - slowest)
        assert event.data["passed"]["fired_at"] >= plus(heard[where], chance), where


def answers_in_time_count(world: World) -> None:
    """No deadline passes that an answer, queued for the custodian before it was due, did away.

    In time means by the fastest of the custodians' clocks, and by a slack earlier: they send
    a marker each second, so what comes within it may still lie before the last one.
    """
    _slowest, fastest = _custodians_ahead(world)
    custody = world.nodes["escalation"].store.documents()
    said: dict[str, list[tuple[Instant, Token, Event]]] = defaultdict(list)
    for event, at, _body in world.published:
        if event.type in TAKES["escalation"]:
            queued = plus(at, fastest + SLACK_SECONDS)
            said[event.subject].append((queued, Token.of(event.data["state"]["token"]), event))
    for event in _events(world):
        if event.type != "case.deadline_passed":
            continue
        token = Token.of(event.data["state"]["token"])
        due = event.data["passed"]["due"]
        in_time = [(knows, answer) for at, knows, answer in said[event.subject] if at < due]
        latest, answer = max(in_time, key=lambda pair: pair[0], default=(token, None))
        assert (latest.round, latest.stage) <= (token.round, token.stage), event.subject
        if answer is None or (latest.round, latest.hop) != (token.round, token.hop):
            continue
        ahead = _ahead(custody[event.subject], token)
        # What came too late may have given more time, or less: then it is by that.
        states = [answer for _at, knows, answer in said[event.subject] if knows >= latest]
        dues = {
            (item["kind"], plus(item["due"], -ahead))
            for state in states
            for item in state.data["state"]["deadlines"]
        }
        assert (event.data["passed"]["kind"], due) in dues, event.subject


def nobody_waits_for_a_dead_desk(world: World) -> None:
    """A suspended case has its deadlines moved by its longest time: they come after it.

    One that was supervised may have none any more: its time had passed before.
    """
    for case, document in world.nodes["escalation"].store.documents().items():
        suspension = document["state"].get("suspension")
        if suspension is None:
            continue
        resolve = [item for item in document["state"]["deadlines"] if item["kind"] == "resolve"]
        assert resolve or document["supervision"], case
        late = [item for item in resolve if suspension["at"] < item["due"]]
        assert all(item["due"] > suspension["until"] for item in late), case


def under_the_rules_of_their_place(world: World) -> None:
    """Every open case follows the switches of emergency mode, whoever heard of them when."""
    for case, held in world.nodes["escalation"].store.documents().items():
        if held["state"]["token"]["stage"] == "held":
            wanted = world.atlas.emergency_of(held["facts"])
            assert held["facts"].get("emergency") == wanted, case


def told_of_once(world: World) -> None:
    """Each update of a case is in the register once, and one event tells of it."""
    told: dict[str, list[str]] = defaultdict(list)
    for event in {event.id: event for event in _events(world)}.values():
        if event.type == "case.updated":
            told[event.subject].append(event.data["update"]["id"])
    for case, document in world.nodes["intake"].store.documents().items():
        kept = [item["id"] for item in document.get("updates", [])]
        assert len(kept) == len(set(kept)), case
        assert sorted(told[case]) == sorted(kept), case


def closed_once(world: World) -> None:
    """A round is closed once, and not before its time unless somebody was satisfied.

    Each answer is taken once: who is satisfied closes the case, who is not has it taken up again.
    """
    given: dict[tuple[str, int], set[str]] = defaultdict(set)
    closed: dict[tuple[str, int], set[str]] = defaultdict(set)
    reopened: dict[tuple[str, int], set[str]] = defaultdict(set)
    satisfied: set[tuple[str, int]] = set()
    for event in _events(world):
        token = Token.of(event.data["state"]["token"])
        where = event.subject, token.round
        if event.type == "case.feedback_given":
            given[where].add(event.id)
            if event.data["feedback"]["satisfied"]:
                satisfied.add(where)
        elif event.type == "case.closed":
            closed[where].add(event.data["closing"]["why"])
            due = event.data["closing"]["due"]
            assert due is None or due <= event.time, where
        elif event.type == "case.reopened":
            reopened[event.subject, token.round - 1].add(event.data["reopening"]["why"])
    for where, ids in given.items():
        assert len(ids) == 1, where
        if where in satisfied:
            assert closed[where] == {"confirmed"}, where
        else:
            assert reopened[where] == {"unsatisfied"}, where
    for where, whys in closed.items():
        assert len(whys) == 1, where
        assert ("confirmed" in whys) == (where in satisfied), where


def answers_are_waited_for(world: World) -> None:
    """A case has a time to be closed exactly while it is resolved."""
    for case, record in world.nodes["intake"].store.documents().items():
        waits = record.get("close_due") is not None
        assert waits == (record["state"]["token"]["stage"] == "resolved"), case


def reopened_too_often(world: World) -> None:
    """A case is supervised once in each round from the one on that its profile says."""
    told: dict[tuple[str, int], set[str]] = defaultdict(set)
    for event in _events(world):
        if event.type == "case.supervised" and event.data["passed"]["kind"] == "reopened":
            token = Token.of(event.data["state"]["token"])
            told[event.subject, token.round].add(event.id)
    for (case, round_), ids in told.items():
        assert round_ > 1, case
        assert len(ids) == 1, case
    for case, held in world.nodes["escalation"].store.documents().items():
        token = held["state"]["token"]
        if token["stage"] == "held" and token["round"] > 1:
            assert told[case, token["round"]], case


def called_units_agree(world: World) -> None:
    """All agree what each unit that was called did, and whether it may leave.

    Nobody leaves before the holder releases it, or the case has ended (人不撤).
    """
    register = world.nodes["intake"].store.documents()
    for case, held in world.nodes["escalation"].store.documents().items():
        state, known = held["state"], held.get("calls", {})
        joined = {item["id"] for item in state.get("joined", ())}
        assert joined <= known.keys(), case
        progress = {
            name: {part: item[part] for part in whistles.NOTHING} for name, item in known.items()
        }
        shown = register[case].get("progress", {})
        for name, item in progress.items():
            assert shown.get(name, whistles.NOTHING) == item, name
        level, token = state["address"]["level"], state["token"]
        if token["stage"] == "held" and level not in world.dead:
            entry = world.nodes[level].store.documents()[f"{case}:{token['round']}.{token['hop']}"]
            for name in joined:
                told = entry.get("progress", {}).get(name, whistles.NOTHING)
                assert told == progress[name], name
        there = {item["id"] for item in whistles.standing(state)}
        for name, item in known.items():
            if item["sent"] and token["stage"] == "held":
                assert name in joined or item["call"]["round"] < token["round"], name
            level = item["call"]["level"]
            if level in world.dead:
                continue
            own = world.nodes[level].store.documents().get(calls.key(name))
            assert (own is not None) == item["sent"], name
            if own is not None:
                stands = token["stage"] == "held" and name in there
                assert (own["status"] != "ended") == stands, name
                for part in ("checked_in", "finished"):
                    assert own[part] == item[part], name


def units_are_waited_for(world: World) -> None:
    """Each unit that is called to an open case must check in by a deadline, and finish by one.

    It is armed until the unit did so, was released, or it has passed.
    """
    for case, held in world.nodes["escalation"].store.documents().items():
        if held["state"]["token"]["stage"] != "held":
            continue
        waited = {(item["call"], item["kind"]) for item in whistle.pending(held)}
        for call in whistles.standing(held["state"]):
            known = held["calls"][call["id"]]
            assert known["sent"], call["id"]
            for kind in whistles.KINDS:
                over = kind in known["missed"] or whistles.met(kind, known)
                assert ((call["id"], kind) in waited) != over, (call["id"], kind)
        earliest = min((item["due"] for item in whistle.pending(held)), default=None)
        if earliest is not None:
            grace = world.atlas.rules_for(held["facts"]).grace
            # Who holds the case must have had a chance to hear of it.
            _slowest, fastest = _custodians_ahead(world)
            latest = plus(world.clock.now(), grace + fastest)
            assert held["next_due"] <= max(earliest, latest), case


def units_are_told_once(world: World) -> None:
    """A unit is called once for each call, and once is told of each deadline that it missed."""
    told: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for event in _events(world):
        if event.type in ("case.called", "case.unit_overdue", "case.checked_in", "case.finished"):
            kind = event.data["passed"]["kind"] if "passed" in event.data else ""
            told[event.type, event.data["call"]["id"], kind].add(event.id)
    for where, ids in told.items():
        assert len(ids) == 1, where


def units_that_came_in_time_count(world: World) -> None:
    """No unit is said to stay away that had come in time by every clock there is."""
    ahead = [replica.ahead for node in world.nodes.values() for replica in node.replicas]
    came: dict[str, Instant] = {}
    for event, at, _body in world.published:
        if event.type in ("case.checked_in", "case.finished"):
            came.setdefault(event.data["call"]["id"], at)
    for event in _events(world):
        if event.type == "case.unit_overdue" and event.data["passed"]["kind"] == "check_in":
            call = event.data["call"]["id"]
            by_all = plus(event.data["passed"]["due"], -(max(ahead) - min(*ahead, 0.0)))
            assert call not in came or plus(came[call], SLACK_SECONDS) >= by_all, call


def merged_into_the_oldest(world: World) -> None:
    """What follows does so at once and in no circle: an older case that follows none itself.

    That one knows of it, and is as urgent at least.
    """
    custody = world.nodes["escalation"].store.documents()
    for case, document in custody.items():
        if document["state"]["token"]["stage"] != "held":
            continue
        follows = document["facts"].get("follows")
        if follows is None:
            continue
        lead = custody[follows]
        ages = [(item["facts"]["reported_at"], item["case"]) for item in (lead, document)]
        assert ages[0] < ages[1], case
        said = lead["followers"][case]
        since = {"case": follows, "round": said["round"], "hop": said["hop"]}
        assert document["following"] == since, case
        if lead["state"]["token"]["stage"] != "held" or said["left"] is not None:
            # What becomes of it then is the next rule's.
            continue
        assert "follows" not in lead["facts"], case
        order = [*world.atlas.rules_for(lead["facts"]).urgencies]
        urgencies = [item["facts"]["urgency"] for item in (lead, document)]
        assert order.index(urgencies[0]) >= order.index(urgencies[1]), case


def followers_end_with_their_lead(world: World) -> None:
    """A case whose lead was resolved is resolved, unless the desk that holds it is dead.

    One whose lead was withdrawn, or follows another, follows that one or none.
    """
    custody = world.nodes["escalation"].store.documents()
    for case, document in custody.items():
        state, follows = document["state"], document["facts"].get("follows")
        if state["token"]["stage"] != "held" or follows is None:
            continue
        left = custody[follows]["followers"][case]["left"]
        if left is None:
            assert custody[follows]["state"]["token"]["stage"] == "held", case
        else:
            assert left == "resolved", case
            assert state["address"]["level"] in world.dead, case
    for event in _events(world):
        resolution = event.data.get("state", {}).get("resolution")
        if event.type == "case.resolved" and "followed" in resolution:
            assert event.data["case"]["follows"] == resolution["followed"], event.subject


def only_who_follows_is_named(world: World) -> None:
    """The register names as followers of a case just those that follow it."""
    register = world.nodes["intake"].store.documents()
    for case, record in register.items():
        for follower in (record.get("merged") or {"followers": ()})["followers"]:
            assert register[follower]["facts"].get("follows") == case, (case, follower)


def links_are_mutual(world: World) -> None:
    """Of two cases that are linked both show it."""
    register = world.nodes["intake"].store.documents()
    for case, record in register.items():
        for other, said in record.get("links", {}).items():
            assert register[other]["links"][case] == said, case


def watchers_agree(world: World) -> None:
    """The register's watchers are those of the last event that said who watches."""
    said: dict[str, dict[str, Any]] = {}
    for event in _events(world):
        if event.type == "case.watched":
            known = said.get(event.subject, {"version": 0})
            told = {"to": event.data["watchers"], "version": event.data["version"]}
            said[event.subject] = max(known, told, key=lambda item: item["version"])
    for case, record in world.nodes["intake"].store.documents().items():
        assert record.get("watchers") == said.get(case), case


def steps_come_first(world: World) -> None:
    """Nobody resolves a case before the steps of their procedure, unless authorised; in order."""
    for event in _events(world):
        if event.type == "case.resolved":
            state, facts = event.data["state"], event.data["case"]
            if "followed" in state["resolution"]:
                # It was settled with the case that it follows.
                continue
            profile = world.atlas.rules_for(facts)
            procedure = profile.procedure(facts, state["address"]["level"])
            if procedure is None or "authority" in state:
                continue
            done = [item["step"] for item in state.get("steps", ())]
            assert done == list(procedure.steps), event.subject


def authority_was_given(world: World) -> None:
    """Who has a level's authority got the case from it, with just that, and has it still."""
    given: dict[tuple[str, int], list[tuple[int, Any]]] = defaultdict(list)
    for event in _events(world):
        token = Token.of(event.data["state"]["token"]) if "state" in event.data else None
        if event.type == "case.delegated" and token and event.data["request"].get("authorise"):
            place = event.data["state"]["address"]
            given[event.subject, token.round].append((token.hop, place))
    for event in _events(world):
        state = event.data.get("state", {})
        if "authority" in state:
            token = Token.of(state["token"])
            before = [item for item in given[event.subject, token.round] if item[0] <= token.hop]
            assert before, event.subject
            assert before[-1][1] == state["address"], event.subject


def supervised(world: World) -> None:
    """Every case that is still open reached the last level and was told upwards."""
    for case, record in world.nodes["intake"].store.documents().items():
        if record["state"]["token"]["stage"] != "held":
            continue
        assert record["state"]["address"]["level"] == LEVELS[-1], case
        assert record["supervision"]["times"] >= 1, case


def entries(world: World, level: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The docket entries of a desk, without what it was asked for and what units are called to."""
    documents = world.nodes[level].store.documents().items()
    return (
        (key, entry) for key, entry in documents if "asked_in" not in entry and "call" not in entry
    )


def _events(world: World) -> Iterator[Event]:
    return (sent.event for sent in world.published)


def _custodians_ahead(world: World) -> tuple[float, float]:
    ahead = [replica.ahead for replica in world.nodes["escalation"].replicas]
    return min(ahead), max(ahead)


def _ahead(held: dict[str, Any], token: Token) -> float:
    """By how much the custodian took the deadlines of a hop back."""
    hop = token.round, token.hop
    return next(
        float(item["ahead"]) for item in held["seen"] if (item["round"], item["hop"]) == hop
    )


def systems_are_answered(world: World) -> None:
    """What a unit's system asks for is answered once, and done once if it was accepted."""
    answers: dict[str, set[str]] = defaultdict(set)
    notes: dict[str, set[str]] = defaultdict(set)
    done: set[tuple[str, str]] = set()
    for event in _events(world):
        if event.type == "case.act_answered":
            answered = event.data["answered"]
            answers[answered["id"]].add(answered["answer"])
        elif event.type == "case.noted":
            notes[event.data["note"]["text"]].add(event.id)
        elif event.type in ("case.acknowledged", "case.resolved", "case.checked_in"):
            done.add((event.subject, event.type))
        elif event.type == "case.reopened" and event.data["state"]["acknowledged"] is not None:
            # Reopened to who resolved it, it is theirs from the beginning.
            done.add((event.subject, "case.acknowledged"))
    acts = {"acknowledge": "acknowledged", "resolve": "resolved", "check_in": "checked_in"}
    for case, record in world.nodes["intake"].store.documents().items():
        for identity, ask in record.get("asks", {}).items():
            unit = identity.removeprefix(f"{case}-").partition("-")[0]
            level = world.atlas.directory.units[unit].level
            if level in world.dead:
                continue
            assert ask["answer"] is not None, identity
            answer, act = ask["answer"]["answer"], ask["type"].split(".")[2]
            assert answers[identity] == {answer}, identity
            if act == "progress":
                assert len(notes[identity]) == (answer == "accepted"), identity
            elif answer == "accepted":
                assert (case, f"case.{acts[act]}") in done, identity
