"""The texts of the shop's log lines, in the formats that nginx, PostgreSQL and the applications use."""

from __future__ import annotations

from datetime import UTC, datetime

POOL_TIMEOUT = (
    "sqlalchemy.exc.TimeoutError: QueuePool limit of size 10 overflow 0 reached, connection timed out, "
    "timeout 30.00 (Background on this error at: https://sqlalche.me/e/20/3o7r)"
)
GUEST_ERROR = (
    "AttributeError: 'NoneType' object has no attribute 'phone' (app/checkout.py:141 in prefill_contact)"
)
GUEST_TRACE = (
    'Traceback (most recent call last): File "app/checkout.py", line 88, in checkout; '
    'File "app/checkout.py", line 141, in prefill_contact; '
    "AttributeError: 'NoneType' object has no attribute 'phone'"
)
NO_SLOTS = "FATAL:  remaining connection slots are reserved for non-replication superuser connections"
SLOW_STATEMENT = "SELECT id, name FROM products WHERE name ILIKE $1"
TERMINATED = "FATAL:  terminating connection due to administrator command"
COUPON_STATEMENT = "SELECT code, kind, stacking FROM coupons WHERE code = ANY($1)"

PATHS = (
    ("GET", "/products/{n}", 200, 41),
    ("GET", "/search?q=lamp&page={p}", 200, 88),
    ("GET", "/basket", 200, 27),
    ("POST", "/basket/items", 201, 62),
    ("POST", "/checkout", 200, 183),
    ("GET", "/orders/{n}", 200, 54),
    ("GET", "/healthz", 200, 1),
    ("POST", "/checkout/coupon", 200, 74),
)
COUPONS = ("SPRING10", "VIP5", "WELCOME", "FREESHIP", "LAMP15")
JOBS = ("send_receipt", "thumbnail", "sync_stock", "send_shipping_mail")


def stamp(at: float) -> str:
    """The time as PostgreSQL's %m writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def postgres(at: float, pid: int, user: str, application: str, text: str) -> str:
    """A server line with log_line_prefix '%m [%p] %q%u@%d app=%a '."""
    return f"{stamp(at)} [{pid}] {user}@shop app={application} {text}"


def postgres_background(at: float, pid: int, text: str) -> str:
    """A line of a background process: the prefix ends at %q."""
    return f"{stamp(at)} [{pid}] {text}"


def nginx_access(
    client: str, at: float, method: str, path: str, status: int, seconds: float, size: int
) -> str:
    """A line of the access log with the times of request and upstream."""
    when = datetime.fromtimestamp(at, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return (
        f'{client} - - [{when}] "{method} {path} HTTP/1.1" {status} {size} "-" "Mozilla/5.0" '
        f"rt={seconds:.3f} urt={max(0.0, seconds - 0.002):.3f}"
    )


def nginx_timeout(number: int, client: str, upstream: str) -> str:
    """The error-log line of a request whose upstream did not answer in time."""
    return (
        f"[error] 31#31: *{number} upstream timed out (110: Connection timed out) while reading response "
        f'header from upstream, client: {client}, server: shop.example, request: "POST /checkout HTTP/1.1", '
        f'upstream: "http://{upstream}:8000/checkout", host: "shop.example"'
    )


def clock(seconds: float) -> str:
    """An age as hh:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
