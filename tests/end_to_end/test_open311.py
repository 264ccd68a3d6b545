"""Open311 GeoReport v2: an app's server reports, and everybody reads what the county opens."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import georeport
import httpx
import pytest
import requests

from deploy.local.stack import Stack
from services.grid.clock import plus
from tests.contract import documented
from tests.end_to_end.county import GRID, QUICK, County, eventually

VILLAGE = "469002104214"
PERSON = {"first_name": "门", "last_name": "欧阳", "phone": "0898 6282 1234"}
# Of the test profile: 沙美村, and a place out at sea.
SHAMEI, AT_SEA = {"lat": 19.151, "long": 110.581}, {"lat": 18.0, "long": 111.9}


@dataclass
class App:
    """A system that speaks Open311."""

    county: County
    name: str
    key: str | None

    @property
    def url(self) -> str:
        return f"{self.county.about['intake']}/open311/v2"

    def get(self, path: str, **params: Any) -> httpx.Response:
        """Asks; every answer must be as the document says."""
        if self.key is not None:
            params = {"api_key": self.key, **params}
        return self._checked(lambda: httpx.get(f"{self.url}/{path}", params=params, timeout=30))

    def post(self, path: str, data: dict[str, Any], **headers: str) -> httpx.Response:
        if self.key is not None:
            data = {"api_key": self.key, **data}
        return self._checked(
            lambda: httpx.post(f"{self.url}/{path}", data=data, headers=headers, timeout=30)
        )

    def _checked(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        def answered() -> httpx.Response | None:
            answer = ask()
            documented.check("intake", answer)
            return None if answer.status_code == 503 else answer

        return eventually("an answer", answered)

    def report(self, **more: Any) -> str:
        """Reports, and returns the request's id."""
        answer = self.post("requests.json", {**form(), **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()[0]["service_request_id"])

    def one(self, case: str) -> dict[str, Any]:
        (found,) = self.get(f"requests/{case}.json").json()
        return dict(found)

    def refused(self, status: int, answer: httpx.Response) -> str:
        """What an error says."""
        assert answer.status_code == status, answer.text
        return " ".join(each["description"] for each in answer.json())


def form(**more: Any) -> dict[str, Any]:
    return {"service_code": "facility", "address_id": GRID, "description": "不亮三天", **more}


Add = Callable[..., App]


@pytest.fixture(scope="module")
def add(county: County) -> Add:
    def make(name: str, **body: Any) -> App:
        url = f"{county.about['intake']}/v1/systems/{name}"
        answer = county.ask("PUT", url, json={"may": ["case.report", "case.update"], **body})
        assert answer.status_code == 200, answer.text
        return App(county, name, answer.json()["key"])

    return make


@pytest.fixture(scope="module")
def app(add: Add) -> App:
    return add("street_app", divisions=["469002104"])


@pytest.fixture(scope="module")
def anybody(county: County) -> App:
    return App(county, "", None)


def resolved(county: County, case: str) -> None:
    """Its household grid settles it."""
    county.arrived("household", case)
    answer = county.act("household", case, "resolve", outcome="settled", note="林某家门口")
    assert answer.status_code == 200, answer.text
    eventually("the end", lambda: county.case(case)["status"] == "resolved")


def parsed(answer: httpx.Response) -> ElementTree.Element:
    assert answer.headers["content-type"] == "text/xml; charset=utf-8"
    assert answer.text.startswith('<?xml version="1.0" encoding="utf-8"?>')
    return ElementTree.fromstring(answer.content)


def test_discovery_says_where_and_in_which_formats(anybody: App) -> None:
    said = anybody.get("discovery.json").json()
    (endpoint,) = said["endpoints"]
    assert endpoint["url"] == anybody.url
    assert endpoint["formats"] == ["application/json", "text/xml"]
    assert endpoint["specification"] == "http://wiki.open311.org/GeoReport_v2"
    root = parsed(anybody.get("discovery.xml"))
    assert root.tag == "discovery"
    assert [each.text for each in root.iter("format")] == ["application/json", "text/xml"]
    proxied = httpx.get(f"{anybody.url}/discovery.json", headers={"X-Forwarded-Proto": "https"})
    assert proxied.json()["endpoints"][0]["url"] == anybody.url.replace("http:", "https:")
    odd = httpx.get(f"{anybody.url}/discovery.xml", headers={"Host": 'a"><b'})
    assert (odd.status_code, parsed(odd).tag) == (400, "errors")


def test_the_services_are_the_categories_of_the_profile(anybody: App) -> None:
    found = anybody.get("services.json").json()
    assert [each["service_code"] for each in found] == ["facility", "order"]
    assert found[0]["service_name"] == "公共设施"
    assert found[0]["metadata"] is True
    root = parsed(anybody.get("services.xml", jurisdiction_id="469002"))
    assert root.tag == "services"
    assert root.findtext("service/service_name") == "公共设施"
    assert root.findtext("service/metadata") == "true"

    definition = anybody.get("services/facility.json").json()
    attributes = {each["code"]: each for each in definition["attributes"]}
    assert [each["order"] for each in attributes.values()] == [1, 2, 3, 4]
    urgencies = [value["key"] for value in attributes["urgency"]["values"]]
    # In the profile's order, and not by the alphabet.
    assert urgencies == ["calm", "ordinary", "urgent"]
    root = parsed(anybody.get("services/facility.xml"))
    assert root.findtext("service_code") == "facility"
    assert [each.text for each in root.iter("key")][:3] == urgencies
    assert "write one of facility" in anybody.refused(404, anybody.get("services/magic.json"))
    unknown = anybody.get("services.json", jurisdiction_id="110000")
    assert "469002" in anybody.refused(404, unknown)
    errors = parsed(anybody.get("services.xml", jurisdiction_id="110000"))
    assert (errors.tag, errors.findtext("error/code")) == ("errors", "404")


def test_a_report_becomes_a_case_and_who_sent_it_follows_it(app: App, county: County) -> None:
    answer = app.post(
        "requests.json",
        form(
            **PERSON,
            email="ouyang@example.cn",
            device_id="tt222111",
            account_id="a-7",
            lat=19.1502,
            long=110.5823,
            description="东侧第三盏\r\n已有三天 <b>&amp;",
            media_url=["https://files.example.cn/灯.jpg", "https://files.example.cn/2.jpg"],
            **{
                "attribute[title]": "文化广场路灯不亮",
                "attribute[urgency]": "calm",
                "attribute[occurred_at]": plus(county.clock.now(), -600),
            },
        ),
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    (made,) = answer.json()
    assert made["account_id"] == "a-7"
    case = county.case(made["service_request_id"])
    assert (case["title"], case["urgency"], case["source"]) == ("文化广场路灯不亮", "calm", "app")
    assert case["division"]["code"] == GRID
    assert case["description"] == "东侧第三盏\n已有三天 <b>&amp;"
    assert len(case["media"]) == 2
    assert case["tracking"] in made["service_notice"]
    url = f"{county.about['intake']}/v1/cases/{case['id']}/reporter"
    assert county.ask("GET", url).json()["reporter"] == {
        "name": "欧阳门",
        "phone": "0898 6282 1234",
        "email": "ouyang@example.cn",
        "device": "tt222111",
        "account": "a-7",
    }
    county.arrived("household", case["id"])

    own = app.one(case["id"])
    assert (own["status"], own["status_notes"]) == ("open", "户联系：待接单")
    assert own["description"] == case["description"]
    assert (own["lat"], own["long"]) == (19.1502, 110.5823)
    assert own["address_id"] == GRID
    assert own["media_url"].startswith("https://files.example.cn/")
    for name in ("requested_datetime", "updated_datetime", "expected_datetime"):
        # A zone, and no fractions.
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00", own[name]), own[name]
    root = parsed(app.get(f"requests/{case['id']}.xml"))
    assert root.tag == "service_requests"
    assert root.findtext("request/description") == case["description"]
    assert root.find("request/zipcode").text is None  # type: ignore[union-attr]

    county.act("household", case["id"], "acknowledge")
    eventually("open, accepted", lambda: app.one(case["id"])["status_notes"] == "户联系：已接单")
    resolved(county, case["id"])
    own = app.one(case["id"])
    assert (own["status"], own["status_notes"]) == ("closed", "已办结：办结")
    assert own["expected_datetime"] is None
    assert "林某" not in str(own)

    token = app.get(f"tokens/{case['tracking']}.json").json()
    assert token == [{"service_request_id": case["id"], "token": case["tracking"]}]
    root = parsed(app.get(f"tokens/{case['tracking'].lower()}.xml"))
    assert root.findtext("request/service_request_id") == case["id"]
    for unknown in ("7K3M9QXW2A", "x"):
        app.refused(404, app.get(f"tokens/{unknown}.json"))


def test_a_point_on_the_map_finds_its_division(app: App, county: County) -> None:
    bare = {"service_code": "facility"}

    def placed(**where: Any) -> dict[str, Any]:
        (made,) = app.post("requests.json", {**bare, **where}).json()
        return county.case(made["service_request_id"])

    case = placed(**SHAMEI)
    assert (case["division"]["code"], case["triage"]) == (VILLAGE, False)
    assert case["location"] == SHAMEI
    # Without a title the service's name: the description may name people, and desks see titles.
    assert case["title"] == "公共设施"
    # What is named is surer than what is near, and says more.
    assert placed(address_string="博鳌镇朝烈村", **SHAMEI)["division"]["code"] == "469002104205"
    assert placed(address_string="3组7户", **SHAMEI)["division"]["code"] == GRID
    # What can't be placed is placed by a person.
    lost = placed(address_string="博鳌镇某处", **AT_SEA)
    assert (lost["division"]["code"], lost["triage"]) == ("469002104", True)
    said = app.refused(400, app.post("requests.json", {**bare, **AT_SEA}))
    assert "lat: no place of the directory is near: send address_string" in said
    for incomplete in ({}, {"lat": 19.1}, {"lat": 91, "long": 0}, {"lat": "nan", "long": 1}):
        app.refused(400, app.post("requests.json", {**bare, **incomplete}))


def test_everybody_sees_what_the_county_opens_and_nothing_that_points_to_a_person(
    app: App, anybody: App, county: County
) -> None:
    ended = app.report(**PERSON, description="欧阳家门口", lat=19.1502, long=110.5823)
    still_open, private = app.report(), app.report(service_code="order")
    assert anybody.get(f"requests/{ended}.json").status_code == 404
    resolved(county, ended)
    found = anybody.one(ended)
    assert (found["status"], found["status_notes"]) == ("closed", "办结")
    assert (found["address_id"], found["address"]) == (VILLAGE, "琼海市博鳌镇沙美村委会")
    assert [found[name] for name in ("description", "lat", "long", "media_url")] == [None] * 4
    for name in ("requested_datetime", "updated_datetime"):
        assert found[name].endswith("T00:00:00+08:00")
    tracking = county.case(ended)["tracking"]
    listed = anybody.get("requests.json").json()
    shown = {each["service_request_id"] for each in listed}
    assert ended in shown
    assert not {still_open, private} & shown
    assert not any(secret in str(listed) for secret in (tracking, "欧阳", "林某", GRID))
    # No window of hours tells when on its day it was reported.
    at = county.case(ended)["reported_at"]
    hours = {"start_date": plus(at, 1), "end_date": plus(at, 60)}
    assert ended in {
        each["service_request_id"] for each in anybody.get("requests.json", **hours).json()
    }
    assert anybody.get("requests.json", status="open").json() == []
    updates = anybody.get("servicerequestupdates.json").json()
    (update,) = [each for each in updates if each["service_request_id"] == ended]
    assert (update["status"], update["description"]) == ("closed", "已办结：办结")
    assert update["updated_datetime"].endswith("T00:00:00+08:00")
    # Another system's key opens what everybody sees, and no more.
    listed = anybody.get("requests.json", service_request_id=f"{ended},{still_open}").json()
    assert [each["service_request_id"] for each in listed] == [ended]


def test_a_key_shows_its_own_by_all_filters(add: Add, county: County) -> None:
    app, stranger = add("filters"), add("stranger_app")
    first, second = app.report(), app.report(service_code="order", **{"attribute[urgency]": "calm"})
    third = app.report()
    resolved(county, third)

    def ids(**params: Any) -> list[str]:
        answer = app.get("requests.json", **params)
        assert answer.status_code == 200, answer.text
        return [each["service_request_id"] for each in answer.json()]

    assert ids() == [third, second, first]
    assert ids(service_code="order") == [second]
    assert ids(service_code="order,facility") == [third, second, first]
    assert ids(service_code=["order", "facility"]) == [third, second, first]
    assert ids(status="open") == [second, first]
    assert ids(status="closed", service_code="") == [third]
    assert ids(status="open,closed") == [third, second, first]
    # It overrides all others.
    wanted = ",".join([first, "unknown", third])
    assert ids(service_request_id=wanted, status="open", service_code="order") == [first, third]
    assert ids(page_size=2) == [third, second]
    assert ids(page_size=2, page=2) == [first]
    assert ids(page_size=2, page=3) == []
    at = county.case(second)["reported_at"]
    assert ids(start_date=at, end_date=at) == [second]
    assert ids(start_date=at) == [third, second]
    assert ids(end_date=at) == [second, first]
    zoned = datetime.fromisoformat(at).replace(microsecond=0).isoformat()
    unescaped = httpx.get(f"{app.url}/requests.json?api_key={app.key}&start_date={zoned}")
    assert len(unescaped.json()) >= 2, unescaped.text
    for wrong, said in (
        ({"start_date": plus(at, -91 * 86400), "end_date": at}, "90 days at most"),
        ({"start_date": at, "end_date": plus(at, -1)}, "after start_date"),
        ({"start_date": "2026-01-01"}, "RFC 3339"),
        ({"start_date": "0001-01-01T00:00:00Z"}, "1970"),
        ({"end_date": "9999-12-31T23:59:59Z"}, "2999"),
        ({"status": "fixed"}, "open,closed"),
        ({"service_code": "magic"}, "facility"),
        ({"page": 11, "page_size": 1000}, "fewer days"),
        ({"page": 0}, "page"),
        ({"page_size": 1001}, "page_size"),
        ({"statuss": "open"}, "did you mean status?"),
        ({"service_request_id": ",".join(["x"] * 1 + [str(n) for n in range(300)])}, "1 to 200"),
    ):
        answer = app.get("requests.json", **wrong)
        status = 404 if "service_code" in wrong else 400
        assert said in app.refused(status, answer), wrong
    assert stranger.get("requests.json").json() == []
    assert stranger.get(f"requests/{first}.json").status_code == 404
    assert stranger.one(third)["description"] is None
    # The key may stand in the head, too.
    headers = {"Authorization": f"Bearer {app.key}"}
    answer = httpx.get(f"{app.url}/requests/{first}.json", headers=headers)
    assert answer.json()[0]["service_request_id"] == first


def test_updates_are_told_in_turn_and_taken(app: App, add: Add, county: County) -> None:
    began = county.clock.now()
    case = app.report()
    county.arrived("household", case)
    update = {
        "service_request_id": case,
        "update_id": "1201",
        "status": "OPEN",
        "updated_datetime": county.clock.now(),
        "description": "西侧第一盏也不亮",
        "media_url": "https://files.example.cn/3.jpg",
        **PERSON,
    }
    answers = [app.post("servicerequestupdates.json", update) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].json() == answers[1].json()
    (told,) = county.case(case)["updates"]
    assert told["text"] == "西侧第一盏也不亮\nhttps://files.example.cn/3.jpg"
    fixed = {**update, "update_id": "1202", "status": "FIXED", "description": "好了"}
    assert parsed(app.post("servicerequestupdates.xml", fixed)).tag == "service_request_updates"
    assert county.case(case)["updates"][1]["text"].startswith("[FIXED] 好了")
    assert county.case(case)["status"] == "reported"
    county.act("household", case, "acknowledge")
    resolved(county, case)

    def happened() -> list[dict[str, Any]]:
        found = app.get("servicerequestupdates.json", start_date=began).json()
        return [each for each in found if each["service_request_id"] == case]

    eventually("both are told", lambda: len(happened()) >= 2)
    words = [(each["status"], each["description"]) for each in happened()]
    assert words == [("open", "户联系已接单"), ("closed", "已办结：办结")]
    assert len({each["update_id"] for each in happened()}) == 2
    # It is in the order in which we heard of it: who goes on from the last one sees that at least.
    last = happened()[-1]
    again = app.get("servicerequestupdates.json", start_date=last["updated_datetime"]).json()
    assert last["update_id"] in {each["update_id"] for each in again}
    assert (
        happened()[0]
        == app.get("servicerequestupdates.json", start_date=began, page_size=1).json()[0]
    )
    stranger = add("other_app")
    assert all(
        each["service_request_id"] != case or each["description"].startswith("已办结")
        for each in stranger.get("servicerequestupdates.json").json()
    )
    said = stranger.refused(404, stranger.post("servicerequestupdates.json", update))
    assert "you reported no request" in said
    late = {**update, "update_id": "1203"}
    assert "resolved" in app.refused(400, app.post("servicerequestupdates.json", late))
    other = {**update, "description": "别的"}
    assert "new id" in app.refused(400, app.post("servicerequestupdates.json", other))
    number = {**update, "update_id": "1204", "description": "打 138 0013 8000"}
    assert "phone" in app.refused(400, app.post("servicerequestupdates.json", number))


def test_each_refusal_says_what_and_the_cure(app: App, add: Add, anybody: App) -> None:
    def refused(status: int, said: str, by: App = app, **more: Any) -> None:
        answer = by.post("requests.json", {**form(), **more})
        assert said in by.refused(status, answer), answer.text

    refused(403, "api_key is missing", by=anybody)
    refused(403, "not known", by=anybody, api_key="hk_street_app_" + "0" * 64)
    refused(403, "not known", by=anybody, api_key="<script>")
    refused(403, "and not case.report", by=add("only_updates", may=["case.update"]))
    refused(404, "write one of facility", service_code="magic")
    refused(400, "service_code:", service_code="")
    refused(400, "address_id:", address_id="12")
    refused(400, "address_id: 469002199 is not in the directory", address_id="469002199")
    refused(400, "outside of what street_app reports for", address_id="469002")
    refused(404, "jurisdiction_id", jurisdiction_id="110000")
    refused(400, "phone: Write a phone number", phone="call me")
    refused(400, "email:", email="nobody")
    refused(400, "attribute[urgency]: 'soon' is not in profile", **{"attribute[urgency]": "soon"})
    refused(400, "attribute[title]", **{"attribute[title]": "打 13800138000"})
    refused(400, "attribute[title]", last_name="欧阳", **{"attribute[title]": "欧阳家门口"})
    refused(400, "attribute[colour]: there is no such field", **{"attribute[colour]": "red"})
    refused(400, "media_url", media_url="file:///etc/passwd")
    refused(400, "description", description="x" * 4001)
    refused(400, "description", description="\x1b[31m")
    refused(400, "sent more than once", service_code=["facility", "order"])
    url = f"{app.url}/requests.json"
    for content, kind in (
        (b"service_code=%ff", "application/x-www-form-urlencoded"),
        (b"service_code=\xff", "application/x-www-form-urlencoded"),
        (
            b"&".join(b"a%d=1" % number for number in range(300)),
            "application/x-www-form-urlencoded",
        ),
        (b"{}", "application/json"),
        (b"x" * 70_000, "application/x-www-form-urlencoded"),
        (b"a=1", "application/x-www-form-urlencoded; charset=gbk"),
    ):
        answer = httpx.post(url, content=content, headers={"Content-Type": kind})
        documented.check("intake", answer)
        assert answer.status_code == 400, answer.text
        assert answer.json()[0]["code"] in (400, 413, 415)
    root = parsed(httpx.post(f"{app.url}/requests.xml", data=form()))
    assert root.findtext("error/code") == "403"
    for path in ("requests.html", "requests", "requests/x.rss", "nothing.json"):
        assert httpx.get(f"{app.url}/{path}").status_code == 404
    assert httpx.put(url).status_code == 405


def test_the_same_idempotency_key_is_the_same_request(app: App) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [app.post("requests.json", form(), **headers).json() for _ in range(2)]
    assert answers[0] == answers[1]
    with ThreadPoolExecutor(8) as pool:
        at_once = {"Idempotency-Key": str(uuid.uuid4())}
        made = list(
            pool.map(lambda _: app.post("requests.json", form(), **at_once).json(), range(8))
        )
    assert all(each == made[0] for each in made)
    other = app.post("requests.json", form(description="别的"), **headers)
    assert "new key" in app.refused(400, other)
    assert app.report() != app.report()


def test_a_system_is_limited_as_at_the_front_door(add: Add) -> None:
    crowded = add("crowded_app", open_cases=1)
    crowded.report()
    said = crowded.refused(400, crowded.post("requests.json", form()))
    assert "1 cases of crowded_app are open" in said
    fast = add("fast_app", rate=1)

    def too_fast() -> httpx.Response | None:
        answer = fast.post("requests.json", form(service_code="magic"))
        return answer if answer.status_code == 429 else None

    answer = eventually("too fast", too_fast)
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()[0]["code"] == 429


@pytest.mark.parametrize("output_format", ["json", "xml"])
def test_the_client_georeport_works_as_it_is(app: App, county: County, output_format: str) -> None:
    case = app.report()
    resolved(county, case)
    client = georeport.GeoReport(app.url, jurisdiction="469002", output_format=output_format)
    services = client.get_service_list()
    assert [each["service_code"] for each in services] == ["facility", "order"]
    definition = client.get_service_definition("facility")
    assert definition["service_code"] == "facility"
    found = client.get_service_requests(status="closed", service_code="facility")
    found = found if isinstance(found, list) else [found]
    assert case in {each["service_request_id"] for each in found}
    assert client.get_service_request(case)["status"] == "closed"
    with pytest.raises(requests.HTTPError, match="404"):
        client.get_service_definition("magic")


def test_no_key_and_no_person_lands_in_a_log_or_in_the_audit(app: App, county: County) -> None:
    app.report(**PERSON, email="quite.private@example.cn", device_id="device-0815")
    app.get("requests.json", status="fixed")
    app.post("requests.json", form(service_code="magic"))
    assert app.key is not None
    secrets = (app.key, "欧阳门", "quite.private", "device-0815")
    logs = [path for path in county.stack.folder.rglob("*.log") if path.is_file()]
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], path
    entries = county.audit("intake", who="system.street_app")
    assert {entry["action"] for entry in entries} >= {"POST /open311/v2/requests.<format>"}
    assert not [secret for secret in secrets if secret in str(entries)]


@pytest.fixture(scope="module")
def two(make_stack: Callable[..., Stack]) -> Iterator[App]:
    """A county whose second profile is another county's."""
    county = County(make_stack(PROFILES=f"{QUICK},profiles/dachengqiao"))
    answer = county.ask(
        "PUT", f"{county.about['intake']}/v1/systems/both", json={"may": ["case.report"]}
    )
    yield App(county, "both", answer.json()["key"])


def test_of_several_jurisdictions_one_is_named(two: App) -> None:
    said = two.refused(400, two.get("services.json"))
    assert "jurisdiction_id is missing: write one of 430182119, 469002" in said
    codes = {
        region: {
            each["service_code"] for each in two.get("services.json", jurisdiction_id=region).json()
        }
        for region in ("430182119", "469002")
    }
    assert codes["469002"] == {"facility", "order"} != codes["430182119"]
    answer = two.post("requests.json", form(jurisdiction_id="430182119", service_code="facility"))
    assert answer.status_code in (400, 404), answer.text
    case = two.report(jurisdiction_id="469002")
    assert two.one(case)["service_request_id"] == case
    assert two.get(f"requests/{case}.json", jurisdiction_id="430182119").status_code == 404
    listed = two.get("requests.json", jurisdiction_id="469002").json()
    assert [each["service_request_id"] for each in listed] == [case]
    assert two.get("requests.json", jurisdiction_id="430182119").json() == []
