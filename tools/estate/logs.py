"""The log lines of one tick: written by what the services do in that state, never by a script.

Traffic is sampled as a log shipper would do, so counts compare with each other, not with request rates.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.estate import log_texts as texts
from tools.estate import shop
from tools.estate.log_tick import RANK, Tick
from tools.estate.model import EXPORT_EVERY, EXPORT_LASTS, EXPORT_STARTS
from tools.estate.timeline import Instance
from tools.estate.world import Estate
from tools.records import LogLine


def lines(estate: Estate, service: str, tick: int, min_level: str = "debug") -> list[LogLine]:
    """The lines of one service in one tick, oldest first, from `min_level` up."""
    writer = WRITERS.get(service)
    if writer is None:
        return []
    ticked = Tick(estate, service, tick)
    if not ticked.instances:
        return []
    lowest = RANK[min_level]
    writer(ticked, lowest)
    _rollout(ticked, lowest)
    kept = [line for line in ticked.lines if RANK[line.level] >= lowest]
    kept.sort(key=lambda line: line.at)
    return kept


def _api(tick: Tick, lowest: int) -> None:
    if lowest <= RANK["info"]:
        for number, at, u in tick.times("request", 1.5 * tick.busy * (1 - 0.6 * tick.state.api_errors)):
            method, path, status, took = texts.PATHS[int(u[2] * len(texts.PATHS))]
            path = path.format(n=1000 + int(u[3] * 9000), p=1 + int(u[3] * 9))
            milliseconds = int(took * (0.6 + 0.9 * u[4]))
            text = f"{method} {path} {status} {milliseconds}ms"
            tick.write(at, "info", text, tick.instance(u[5]), tick.trace("request", number), path=path)
        for _, at, u in tick.times("expired", 0.12 * tick.busy):
            code = texts.COUPONS[int(u[2] * len(texts.COUPONS))]
            tick.write(at, "info", f"coupon {code} rejected: expired", tick.instance(u[3]))
    for _, at, u in tick.times("slow", 0.035 * tick.busy):
        text = f"slow request GET /search?q=lamp took {1.2 + 1.4 * u[2]:.2f}s"
        tick.write(at, "warning", text, tick.instance(u[3]), path="/search")
    for _, at, u in tick.times("flags", 0.012):
        tick.write(
            at, "warning", "feature flag service: poll timed out, using cached flags", tick.instance(u[2])
        )
    for number, at, u in tick.times("gateway", 0.01 * tick.busy):
        text = f"payments-gateway answered 429 for order {40000 + int(u[2] * 9000)}, retrying in 2s"
        tick.write(at, "warning", text, tick.instance(u[3]), tick.trace("gateway", number))
    _api_leak(tick)
    _api_pool(tick)
    _api_failures(tick)


def _api_leak(tick: Tick) -> None:
    for behaviour in tick.estate.scenario.behaviours:
        own = [one for one in tick.instances if one.version == behaviour.version]
        if not (behaviour.leaks_per_minute and own):
            continue
        rate = 0.6 * len(own) / len(tick.instances) * (1 - tick.state.api_shortage)
        for number, at, u in tick.times("stacked", rate):
            codes = texts.COUPONS[int(u[2] * 5)] + "+" + texts.COUPONS[int(u[3] * 5)]
            text = f"coupon rejected: stacked codes {codes} (CouponStackingError at app/coupons.py:88)"
            instance = own[int(u[4] * len(own))]
            tick.write(at, "warning", text, instance, tick.trace("stacked", number), path="/checkout/coupon")


def _api_pool(tick: Tick) -> None:
    usage = tick.state.api_in_use / max(1.0, tick.state.api_pool)
    if usage > 0.92:
        for _, at, u in tick.times("pressure", 0.4):
            used = min(10, round(10 * usage))
            text = f"database pool under pressure: {used} of 10 connections checked out on this instance"
            tick.write(at, "warning", text, tick.instance(u[2]), pool=f"{used}/10")
    if tick.state.api_shortage > 0.005:
        for number, at, u in tick.times("timeout", min(6.0, 0.8 + 10 * tick.state.api_shortage)):
            method, path, _, _ = texts.PATHS[int(u[2] * 6)]
            path = path.format(n=1000 + int(u[3] * 9000), p=1)
            text = f"{method} {path} 500 {30000 + int(u[4] * 60)}ms {texts.POOL_TIMEOUT}"
            instance = tick.instance(u[5])
            tick.write(at, "error", text, instance, tick.trace("timeout", number), path=path, status=500)
    if tick.state.api_blip > 0.02:
        for number, at, u in tick.times("cut", 20 * tick.state.api_blip):
            text = "psycopg.OperationalError: terminating connection due to administrator command"
            tick.write(at, "error", text, tick.instance(u[2]), tick.trace("cut", number), status=500)


def _api_failures(tick: Tick) -> None:
    for behaviour in tick.estate.scenario.behaviours:
        own = [one for one in tick.instances if one.version == behaviour.version]
        if not (behaviour.failing_share and own):
            continue
        rate = 7 * behaviour.failing_share * len(own) / len(tick.instances)
        for number, at, u in tick.times("guest", rate):
            text = f"POST /checkout 500 {19 + int(u[2] * 20)}ms {texts.GUEST_ERROR}"
            instance = own[int(u[3] * len(own))]
            trace = tick.trace("guest", number)
            tick.write(
                at,
                "error",
                text,
                instance,
                trace,
                path="/checkout",
                user="guest",
                traceback=texts.GUEST_TRACE,
            )


def _edge(tick: Tick, lowest: int) -> None:
    client = f"203.0.113.{1 + int(tick.chances('client')[0] * 250)}"
    if lowest <= RANK["info"]:
        for _, at, u in tick.times("access", 1.6 * tick.busy):
            method, path, status, took = texts.PATHS[int(u[2] * len(texts.PATHS))]
            path = path.format(n=1000 + int(u[3] * 9000), p=1 + int(u[3] * 9))
            text = texts.nginx_access(
                client, at, method, path, status, took * (0.7 + u[4]) / 1000, int(800 + u[5] * 9000)
            )
            tick.write(at, "info", text, tick.instance(u[6]))
    for _, at, u in tick.times("broken", 3 * tick.state.api_errors if tick.state.api_errors > 0.02 else 0):
        slow = tick.state.api_shortage > 0.005
        text = texts.nginx_access(
            client, at, "POST", "/checkout", 500, 30.0 + u[2] / 20 if slow else 0.03, 171
        )
        tick.write(at, "warning", text, tick.instance(u[3]), status=500)
    for _, at, u in tick.times("upstream", 2.5 * tick.state.api_shortage):
        text = texts.nginx_timeout(8000 + int(u[2] * 90000), client, f"10.20.3.{10 + int(u[3] * 8)}")
        tick.write(at, "error", text, tick.instance(u[4]))
    for _, at, u in tick.times("buffered", 0.02):
        text = (
            f"[warn] 31#31: *{8000 + int(u[2] * 90000)} a client request body is buffered to a temporary "
            f"file /var/cache/nginx/client_temp/{int(u[3] * 9999):010d}, client: {client}"
        )
        tick.write(at, "warning", text, tick.instance(u[4]))


def _worker(tick: Tick, lowest: int) -> None:
    if lowest <= RANK["info"]:
        for _, at, u in tick.times("job", 0.9 * tick.busy * (1 - tick.state.refused)):
            text = f"job {810000 + int(u[2] * 90000)} {texts.JOBS[int(u[3] * 4)]} done in {0.1 + u[4]:.2f}s"
            tick.write(at, "info", text, tick.instance(u[5]))
    for _, at, u in tick.times("retry", 0.025 * tick.busy):
        text = f"job {810000 + int(u[2] * 90000)} send_receipt: payments-gateway answered 502, retry 1 of 5"
        tick.write(at, "warning", text, tick.instance(u[3]))
    for number, at, u in tick.times("refused", 6 * tick.state.refused):
        text = (
            f"job {810000 + int(u[2] * 90000)} {texts.JOBS[int(u[3] * 4)]} failed: "
            "psycopg.OperationalError: connection failed: connection to server at "
            f'"10.20.0.5", port 5432 failed: {texts.NO_SLOTS}'
        )
        tick.write(at, "error", text, tick.instance(u[4]), tick.trace("refused", number))


def _reports(tick: Tick, lowest: int) -> None:
    phase = (tick.offset - EXPORT_STARTS) % EXPORT_EVERY
    instance = tick.instances[0]
    if lowest <= RANK["info"]:
        if phase < shop.TICK_SECONDS:
            tick.write(tick.start + 0.4, "info", "export orders_hourly started, reading from api", instance)
        elif phase < EXPORT_LASTS and phase % 60 < shop.TICK_SECONDS:
            text = f"export orders_hourly: {int(phase * 51)} rows written"
            tick.write(tick.start + 2.1, "info", text, instance)
        elif EXPORT_LASTS <= phase < EXPORT_LASTS + shop.TICK_SECONDS:
            text = f"export orders_hourly finished: {int(EXPORT_LASTS * 51)} rows in {int(EXPORT_LASTS)}s"
            tick.write(tick.start + 0.9, "info", text, instance)
    for _, at, _u in tick.times("refused", 3 * tick.state.refused):
        tick.write(at, "error", f"psycopg.OperationalError: connection failed: {texts.NO_SLOTS}", instance)


def _postgres(tick: Tick, lowest: int) -> None:
    instance = tick.instances[0]
    state = tick.state
    if lowest <= RANK["info"]:
        for _, at, u in tick.times("authorized", 0.25 * tick.busy):
            app = ("api", "worker", "reports")[min(2, int(u[2] * 2.2))]
            text = f"LOG:  connection authorized: user=shop_{app} database=shop application_name={app}"
            tick.write(
                at, "info", texts.postgres(at, 20000 + int(u[3] * 9000), f"shop_{app}", app, text), instance
            )
        if tick.tick % 30 == 0:
            at = tick.start + 1.2
            buffers = 500 + int(tick.chances("checkpoint")[0] * 900)
            text = f"LOG:  checkpoint complete: wrote {buffers} buffers ({buffers / 163.84:.1f}%)"
            tick.write(at, "info", texts.postgres_background(at, 71, text), instance)
    for _, at, u in tick.times("duration", 0.02 * tick.busy):
        text = f"LOG:  duration: {1000 + u[2] * 900:.3f} ms  statement: {texts.SLOW_STATEMENT}"
        line = texts.postgres(at, 20000 + int(u[3] * 9000), "shop_api", "api", text)
        tick.write(at, "warning", line, instance)
    if state.leaked >= 4 and state.leaking_since is not None and tick.tick % 6 == 0:
        age = texts.clock(max(0.0, tick.offset - state.leaking_since))
        text = (
            f"activity snapshot: {round(state.leaked)} sessions idle in transaction, application_name=api, "
            f"oldest {age}, last statement: {texts.COUPON_STATEMENT}"
        )
        tick.write(tick.start + 3.3, "warning", text, instance, application_name="api")
    for _, at, u in tick.times("refused", 7 * state.refused):
        app = ("worker", "reports")[int(u[2] * 1.4)]
        line = texts.postgres(at, 20000 + int(u[3] * 9000), f"shop_{app}", app, texts.NO_SLOTS)
        tick.write(at, "critical", line, instance)
    _terminations(tick, instance)


def _terminations(tick: Tick, instance: Instance) -> None:
    for action in tick.estate.actions:
        if action.kind != "restart_pool" or not 0 <= tick.offset - action.at < shop.TICK_SECONDS:
            continue
        for number in range(min(60, int(action.detail("sessions", 0)))):
            at = tick.start + number * 0.05
            line = texts.postgres(
                at, 20000 + number, f"shop_{action.service}", action.service, texts.TERMINATED
            )
            tick.write(at, "critical", line, instance)


def _redis(tick: Tick, lowest: int) -> None:
    if lowest <= RANK["info"] and tick.tick % 90 == 0:
        tick.write(tick.start + 5.5, "info", "Background saving terminated with success", tick.instances[0])


def _rollout(tick: Tick, lowest: int) -> None:
    """Instances that came and went in this tick."""
    if lowest > RANK["info"] or not tick.estate.timeline.is_changing(tick.service, tick.offset):
        return
    before = tick.estate.timeline.instances(tick.service, tick.offset - shop.TICK_SECONDS)
    if before == tick.instances:
        return
    for instance in set(tick.instances) - set(before):
        tick.write(
            tick.start + 1.0,
            "info",
            f"{tick.service} {instance.version} started, ready for traffic",
            instance,
        )
    for instance in set(before) - set(tick.instances):
        tick.write(tick.start + 1.5, "info", "received SIGTERM, finishing open requests", instance)


WRITERS: dict[str, Callable[[Tick, int], None]] = {
    "shop-edge": _edge,
    "api": _api,
    "worker": _worker,
    "reports": _reports,
    "postgres": _postgres,
    "redis": _redis,
}
