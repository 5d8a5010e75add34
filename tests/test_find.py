"""Finding runs: what a search means, that pages lose and repeat no run, and that the index misses nothing."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from runs import actions, fulltext, tokens
from runs.actions import ActionError
from runs.actions.change import change
from runs.actions.indexing import Indexer, rebuild_index
from runs.models import Run, RunNote, RunStatus, RunTag, SavedSearch, SearchState, Step
from runs.reading import finding
from runs.reading.completion import complete
from runs.reading.excerpts import excerpt, pattern, read_hits
from runs.reading.facets import read_facets
from runs.reading.invariants import contradictions
from runs.reading.places import Sort
from runs.reading.runs import RunPage, RunQuery, read_page
from tests.factories import a_lease, a_run, a_turn, a_waiting_call

pytestmark = pytest.mark.django_db


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def found(text: str, sort: str = "") -> list[int]:
    """The runs of a search, over all pages."""
    query: RunQuery | None = RunQuery(text, Sort.parse(sort))
    pks: list[int] = []
    while query is not None:
        assert query.error is None, query.error
        page = read_page(query, now=timezone.now())
        pks += page.pks
        query = page.next or page.further
    return pks


def a_settled_call(question: str, arguments: dict[str, str], result: str, **fields: object) -> Run:
    """A run with a turn and a call that has a result; indexed by the events that they left."""
    run = a_run(question)
    lease = a_lease(run)
    (call,) = a_turn(lease, ("search_logs", "read", arguments), text="I look at the logs.")
    with change(run.pk, actor="worker-1") as current:
        Step.objects.filter(pk=call.pk).update(status="succeeded", result=result, **fields)
        current.event("call.finished", step=call.seq)
    return run


# ----------------------------------------------------------------- words


def test_words_are_found_wherever_a_run_says_them() -> None:
    run = a_settled_call(
        "Why is checkout slow?", {"query": "needle_in_arguments"}, '{"lines": ["PoolTimeoutError\\nfull"]}'
    )
    lease = a_lease(a_run("another"))
    a_turn(lease, text="Nothing here.")
    Indexer().follow()
    alone = (
        "checkout",
        "needle",
        "PoolTimeoutError",
        "pooltimeouterror",
        "timeout full",
        "logs",
        "chec*",
    )
    for text in (*alone, '"is checkout slow"'):
        assert found(text) == [run.pk], text
    assert found("checkout needle") == []  # not in one and the same place
    assert found('"slow checkout"') == []
    assert found("eckout") == []


@pytest.mark.parametrize("part", ["接続", "データベース", '"がタイム"', "ร้าน", "연결"])
def test_scripts_without_spaces_are_found_by_any_part(part: str) -> None:
    run = a_run("データベースへの接続がタイムアウトしました。 ร้านค้า 데이터연결")
    a_run("something else")
    Indexer().follow()
    assert found(part) == [run.pk]


def test_accents_and_case_do_not_matter() -> None:
    run = a_run("La connexion à la CAFÉTÉRIA échoue")
    Indexer().follow()
    assert found("cafeteria echoue") == [run.pk]


@given(st.text(max_size=200))
def test_a_text_is_found_by_each_of_its_own_words(text: str) -> None:
    stored = tokens.document([text], [])
    for word in text.split():
        phrase = tokens.tokens(word)
        assert all(token in stored for token in phrase)
    assert all(not re.search(r"['\"\\\s]", token) for token in stored)


def test_tools_effects_and_errors_belong_to_the_step_with_the_words() -> None:
    run = a_settled_call("one", {"query": "deploy"}, '{"summary": "needle"}', error_kind="timeout")
    Indexer().follow()
    assert found("needle tool:search_logs effect:read error:timeout") == [run.pk]
    assert found("error:any") == [run.pk]
    assert found("one tool:search_logs") == []  # the question is no step of the tool
    assert found("tool:get_metrics") == []


def test_minus_leaves_out_runs_that_say_it_anywhere() -> None:
    first = a_settled_call("pool one", {"query": "x"}, "{}")
    second = a_run("pool two")
    Indexer().follow()
    assert found("pool -tool:search_logs") == [second.pk]
    assert found("pool -two") == [first.pk]
    assert found("-pool") == []


def test_a_call_that_waits_for_a_person_is_found_already() -> None:
    lease, _, _ = a_waiting_call()
    Indexer().follow()
    assert found("dep_0412 tool:revert_deployment") == [lease.run_id]


def test_a_fork_is_found_by_what_it_copied(operator: User) -> None:
    lease = a_lease(a_run("first"))
    a_turn(lease, text="The needle is here.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="The needle is here.")
    fork = actions.ask_follow_up(run_id=lease.run_id, actor="olga", user=operator, question="And now?")
    Indexer().follow()
    assert found("needle") == [fork.pk, lease.run_id]


def test_hits_show_the_words_in_their_context_and_link_to_the_step(page: Client) -> None:
    evil = "<b>bold</b> needle <script>"
    run = a_settled_call("one", {"query": "q"}, json.dumps({"text": f"{'x ' * 200}{evil}{' y' * 200}"}))
    Indexer().follow()
    html = page.get("/", {"q": "needle"}).content.decode()
    assert "<mark>needle</mark>" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "<script>" not in html.split("</head>")[1]
    assert f'href="{run.get_absolute_url()}?step=2#step-2"' in html


def test_an_excerpt_is_short_and_marks_each_of_the_words() -> None:
    words = pattern([fulltext.Phrase(("slow", "query")), fulltext.Phrase(("pool",), begins=True)])
    pieces = excerpt("a " * 500 + "Slow-query in the PoolTimeoutError " + "b " * 500, words)
    assert pieces is not None
    assert [piece.text for piece in pieces if piece.marked] == ["Slow-query", "PoolTimeoutError"]
    assert sum(len(piece.text) for piece in pieces) < 300


# ---------------------------------------------------------------- fields


def test_fields_mean_what_they_say() -> None:
    first, second, third = (a_run(f"run {n}") for n in range(3))
    now = timezone.now()
    Run.objects.filter(pk=first.pk).update(
        status="failed", cost_usd=Decimal("0.7"), input_tokens=150_000, started_at=now - timedelta(hours=1),
        ended_at=now, step_count=9, model="claude-haiku-5-5",
    )  # fmt: skip
    Run.objects.filter(pk=second.pk).update(
        created_at=now - timedelta(days=3), started_by="olga", step_count=2
    )
    Run.objects.filter(pk=third.pk).update(started_at=now - timedelta(minutes=20))
    actions.tag_run(run_id=second.pk, name="False-Alarm", actor="olga")
    expected = {
        "status:failed": {first}, "status:failed,running": {first}, "-status:failed": {second, third},
        "cost:>0.5": {first}, "cost:<0.5": {second, third}, "tokens:>100k": {first},
        "steps:>1 steps:<5": {second},
        "duration:>10m": {first, third}, "duration:<30m": {second, third}, "user:olga": {second},
        "after:2d": {first, third}, "before:2d": {second}, "tag:false-alarm": {second}, "has:tag": {second},
        "-has:tag": {first, third}, "model:claude-haiku*": {first}, "is:open": {second, third},
        "is:ended": {first}, "is:simulated": {first, second, third}, "is:live": set(), "has:error": {first},
        "agent:incident user:olga": {second},
    }  # fmt: skip
    assert {text: set(found(text)) for text in expected} == {
        text: {run.pk for run in runs} for text, runs in expected.items()
    }


def test_a_search_that_cannot_be_understood_says_what_to_do_and_keeps_the_text(page: Client) -> None:
    a_run("plain")
    html = page.get("/", {"q": 'stauts:failed "x"'}).content.decode()
    assert "Did you mean status:?" in html
    assert "stauts:failed" in html
    assert 'class="run' not in html


def test_old_addresses_with_a_filter_still_work(page: Client) -> None:
    a_waiting_call(a_run("the one that waits"))
    a_run("another one")
    html = page.get("/?status=waiting&agent=incident").content.decode()
    assert "the one that waits" in html
    assert "another one" not in html


# ----------------------------------------------------------------- pages


@pytest.fixture
def many() -> Iterator[list[Run]]:
    """130 runs with equal costs and times in between, some going on."""
    now = timezone.now()
    made = Run.objects.bulk_create(
        Run(
            agent="incident", model="m", user_query=f"pool {n}", config="{}", started_by="a",
            step_count=n % 7,
            cost_usd=Decimal(n % 5) / 10, input_tokens=n % 3, created_at=now - timedelta(minutes=40 - n // 4),
            started_at=now - timedelta(minutes=40 - n // 4) if n % 9 else None,
            status="running" if n % 11 == 0 else "failed" if n % 4 == 0 else "succeeded",
            ended_at=None if n % 11 == 0 else now - timedelta(seconds=n % 13),
        )
        for n in range(130)
    )  # fmt: skip
    list(rebuild_index())
    yield made


def key_of(run: Run, name: str, now: datetime) -> Any:
    """What the list is ordered by, told from the row."""
    return {
        "cost": run.cost_usd, "tokens": run.total_tokens, "steps": run.step_count, "time": run.created_at,
        "duration": run.elapsed(now).total_seconds(),
    }[name]  # fmt: skip


@pytest.mark.parametrize("sort", ["", "-time", "cost", "-cost", "duration", "tokens", "-steps"])
@pytest.mark.parametrize("text", ["", "pool", "-status:failed", "pool status:failed"])
def test_pages_hold_every_run_once_in_order_and_lead_back(
    many: list[Run], sort: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FEW", 10)  # so few runs would all be read at once
    monkeypatch.setattr(finding, "WINDOW", 40)
    now = timezone.now()
    pages: list[RunPage] = []
    query: RunQuery | None = RunQuery(text, Sort.parse(sort))
    while query is not None:
        pages.append(read_page(query, now=now))
        query = pages[-1].next
    rows = [row for page in pages for row in page.rows]
    wanted = [run for run in many if run.status != "failed"] if text.startswith("-") else many
    wanted = [run for run in many if run.status == "failed"] if "pool status" in text else wanted
    assert sorted(row.pk for row in rows) == sorted(run.pk for run in wanted)
    order = [key_of(row.run, Sort.parse(sort).name, now) for row in rows]
    rounded = [round(key, 2) if isinstance(key, float) else key for key in order]
    assert rounded == sorted(rounded, reverse=not sort.startswith("-"))
    back: RunQuery | None = pages[-1].previous
    for page in reversed(pages[:-1]):
        assert back is not None
        again = read_page(back, now=now)
        assert again.pks == page.pks
        back = again.previous
    assert back is None


def test_common_words_are_found_in_the_same_order(many: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = found("pool status:failed")
    monkeypatch.setattr(fulltext, "FEW", 10)
    assert found("pool status:failed") == at_once
    assert set(found("pool status:failed", "cost")) == set(at_once)


def test_a_search_that_looks_long_says_how_far_and_goes_on(
    many: list[Run], page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    monkeypatch.setattr(finding, "WINDOW", 10)
    monkeypatch.setattr(finding, "MOST_WINDOWS", 2)
    oldest = min(many, key=lambda run: (run.created_at, run.pk))
    Run.objects.filter(pk=oldest.pk).update(model="rare")
    html = page.get("/", {"q": "model:rare"}).content.decode()
    assert "Nothing found so far" in html
    assert "Search further" in html
    assert found("model:rare") == [oldest.pk]


def test_counts_of_filters_are_bounded(many: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.reading.facets.CAP", 30)
    shown = {facet.value: facet.shown for facet in read_facets(RunQuery(), now=timezone.now()).statuses}
    assert shown["succeeded"] == "30+"
    assert shown["running"] == "12"


def test_what_runs_have_and_are_is_counted_and_narrows_the_search(page: Client) -> None:
    def beside(address: str) -> dict[str, tuple[str, str]]:
        """By value of a filter: its count, and the search that a click leads to."""
        html = page.get(address).content.decode()
        links = re.findall(r'href="(/\?[^"]*)"[^>]*>(\w+)<span class="n">([\d,+]+)<', html)
        return {value: (count, link.replace("&amp;", "&")) for link, value, count in links}

    def search(address: str) -> str:
        return parse_qs(urlsplit(address).query)["q"][0]

    lease, _, _ = a_waiting_call(a_run("asks"))
    ended, noted = a_run("over"), a_run("noted")
    actions.cancel_run(run_id=ended.pk, actor="olga")
    for pk in (noted.pk, lease.run_id):
        RunNote.objects.create(run_id=pk, text="Look at this.", written_by="olga")
    shown = beside("/?q=")
    counts = {name: shown[name][0] for name in ("approval", "note", "open", "ended")}
    assert counts == {"approval": "1", "note": "2", "open": "2", "ended": "1"}
    assert not {"unknown", "fork", "simulated", "live"} & shown.keys(), "none has them, or all"
    narrowed = beside(shown["note"][1])
    assert narrowed["note"][0] == "2" and narrowed["approval"][0] == "1"
    both = narrowed["approval"][1]
    assert search(both) == "has:note has:approval" and found(search(both)) == [lease.run_id]
    assert search(beside(both)["note"][1]) == "has:approval"


# ----------------------------------------------------------------- index


def test_the_index_can_be_built_anew_and_holds_the_same(page: Client) -> None:
    lease, _, _ = a_waiting_call(a_run("pool"))
    indexer = Indexer()
    indexer.follow()
    before = found("dep_0412")
    list(rebuild_index())
    assert found("dep_0412") == before == [lease.run_id]
    assert indexer.follow().entries == 0  # nothing is left to follow, nothing comes twice


def test_an_index_that_nobody_knows_begins_empty() -> None:
    a_run("pool")
    Indexer().follow()
    SearchState.objects.all().delete()
    assert Indexer().follow().events > 0
    assert len(found("pool")) == 1


def test_following_twice_adds_nothing_and_a_step_may_grow() -> None:
    lease, step, _ = a_waiting_call()
    Indexer().follow()
    assert Indexer().follow().entries == 0
    actions.cancel_run(run_id=lease.run_id, actor="olga")
    Indexer().follow()
    run = Run.objects.get(pk=lease.run_id)
    assert found("dep_0412") == [run.pk]
    hits = read_hits(RunQuery("dep_0412"), [run.pk])
    assert [hit.step for hit in hits[run.pk]] == [step.seq]


# ------------------------------------------------- tags, notes, searches


def test_tags_and_notes_are_events_of_the_run(page: Client) -> None:
    run = a_run()
    address = f"/runs/{run.request_id}/labels"
    page.post(address, {"tag": " False-Alarm "})
    page.post(address, {"tag": "later"})
    page.post(address, {"untag": "later"})
    page.post(address, {"note": "Seen <b>before</b>."})
    html = page.get(run.get_absolute_url()).content.decode()
    assert "false-alarm" in html
    assert "Seen &lt;b&gt;before&lt;/b&gt;." in html
    kinds = list(run.events.order_by("seq").values_list("kind", flat=True))
    assert kinds == ["run.started", "run.tagged", "run.tagged", "run.untagged", "run.noted"]
    assert contradictions(Run.objects.get(pk=run.pk)) == []
    html = page.post(address, {"tag": "no spaces"}, follow=True).content.decode()
    assert "A tag has up to 40 letters" in html


def test_who_may_only_look_writes_no_tags(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    run = a_run()
    html = client.post(f"/runs/{run.request_id}/labels", {"tag": "x"}, follow=True).content.decode()
    assert "You may look but not start runs" in html
    assert client.post("/runs/bulk", {"act": "cancel", "q": "", "count": "1"}).status_code == 403
    assert not RunTag.objects.exists()
    assert Run.objects.get().status == RunStatus.QUEUED


def test_a_search_is_kept_shared_and_shown_first(page: Client, second_operator: User) -> None:
    a_waiting_call(a_run("the one that waits"))
    a_run("another")
    page.post("/runs/searches", {"q": "status:waiting", "name": "Mine to do", "shared": "on", "start": "on"})
    assert page.get("/", follow=True).redirect_chain == [("/?q=status%3Awaiting", 302)]
    assert "another" in page.get("/?q=").content.decode()
    others = Client()
    others.force_login(second_operator)
    html = others.get("/").content.decode()
    assert "Mine to do" in html
    assert "by olga" in html
    others.post(f"/runs/searches/{SavedSearch.objects.get().pk}/remove")
    assert SavedSearch.objects.count() == 1  # only its owner may
    html = page.post("/runs/searches", {"q": "stauts:x", "name": "broken"}, follow=True).content.decode()
    assert "Only a search that works can be kept" in html


# ------------------------------------------------------------------ bulk


def test_all_runs_of_a_search_are_cancelled_after_it_was_confirmed(page: Client) -> None:
    lease, _, _ = a_waiting_call(a_run("pool one"))
    other = a_run("something else")
    Indexer().follow()
    html = page.get("/runs/bulk?act=cancel&q=pool").content.decode()
    assert "Cancel 1 run" in html
    assert page.post("/runs/bulk", {"act": "cancel", "q": "pool", "count": "7"}).status_code == 422
    assert Run.objects.get(pk=lease.run_id).status == RunStatus.WAITING
    html = page.post("/runs/bulk", {"act": "cancel", "q": "pool", "count": "1"}, follow=True).content.decode()
    assert "1 of 1 runs are cancelled." in html
    assert Run.objects.get(pk=lease.run_id).status == RunStatus.CANCELLED
    assert Run.objects.get(pk=other.pk).status == RunStatus.QUEUED


def test_all_runs_of_a_search_are_tagged(page: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [a_run(f"pool {n}") for n in range(3)]
    assert page.post("/runs/bulk", {"act": "tag", "q": "", "tag": "a b", "count": "3"}).status_code == 422
    page.post("/runs/bulk", {"act": "tag", "q": "is:open", "tag": "night", "count": "3"})
    assert set(found("tag:night")) == {run.pk for run in runs}
    monkeypatch.setattr("runs.views.finding.MOST_CHANGED", 2)
    assert "too many at once" in page.get("/runs/bulk?act=tag&q=").content.decode()


def test_a_result_is_exported_as_one_log_per_line(page: Client) -> None:
    run = a_run("pool")
    a_run("another")
    actions.tag_run(run_id=run.pk, name="night", actor="olga")
    response = page.get("/runs/export.jsonl?q=tag:night")
    (line,) = b"".join(response.streaming_content).splitlines()
    log = json.loads(line)
    assert (log["request_id"], log["tags"]) == (str(run.request_id), ["night"])
    assert page.get("/runs/export.jsonl?q=stauts:x").status_code == 400


def test_a_tag_has_a_form() -> None:
    run = a_run()
    assert actions.tag_run(run_id=run.pk, name="A", actor="olga")
    assert not actions.tag_run(run_id=run.pk, name="a", actor="olga")
    with pytest.raises(ActionError, match="A tag has up to 40"):
        actions.tag_run(run_id=run.pk, name="-x", actor="olga")


# ------------------------------------------------------------ completion


def test_completion_offers_fields_then_values(page: Client, operator: User) -> None:
    a_run()
    assert [s.label for s in complete("pool st")] == ["status:", "steps:"]
    assert [s.insert for s in complete("pool -status:fai")] == ["status:failed"]
    assert [s.insert for s in complete("status:failed,st")] == ["status:failed,stopped"]
    assert "search_logs" in [s.label for s in complete("tool:sea")]
    assert complete("user:ol")[0].label == "olga"
    assert complete("nothing-like-it") == complete("http://") == []
    assert (
        page.get("/runs/complete", {"q": "status:wai"}).json()["suggestions"][0]["insert"] == "status:waiting"
    )


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_an_event_that_commits_late_is_followed_although_its_id_is_smaller() -> None:
    run, other = a_run("the early one"), a_run("the other")
    indexer = Indexer()
    indexer.follow()
    begun, finish = threading.Event(), threading.Event()

    def write_slowly() -> None:
        """An event gets its id, and its transaction stays open."""
        try:
            with change(run.pk, actor="worker-1") as current:
                current.set(status="succeeded", final_response="needle")
                current.event("run.succeeded")
                current.save()
                current._events.clear()
                begun.set()
                assert finish.wait(20)
        finally:
            connections.close_all()

    late = threading.Thread(target=write_slowly)
    late.start()
    assert begun.wait(20)
    actions.tag_run(run_id=other.pk, name="later", actor="olga")
    for _ in range(3):
        indexer.follow()
    assert found("needle") == []
    finish.set()
    late.join()
    indexer.follow()
    assert found("needle") == [run.pk]
