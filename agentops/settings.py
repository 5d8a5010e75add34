"""Settings of this installation. Every choice a person may want to change is an environment variable."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentops import environment

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
DATA_DIR = Path(environment.text("AGENTOPS_DATA", str(BASE_DIR / "data")))

DEBUG = environment.flag("AGENTOPS_DEBUG", False)
SECRET_KEY = environment.text("AGENTOPS_SECRET_KEY", "") or environment.kept_secret(DATA_DIR / "secret_key")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *environment.words("AGENTOPS_HOSTS")]
CSRF_TRUSTED_ORIGINS = environment.words("AGENTOPS_ORIGINS")

# The model. Without a key the local simulator answers, unless it is switched off.
ANTHROPIC_API_KEY = environment.text("ANTHROPIC_API_KEY", "")
ANTHROPIC_BASE_URL = environment.text("ANTHROPIC_BASE_URL", "")
AGENTOPS_SIMULATOR = environment.flag("AGENTOPS_SIMULATOR", True)
# A worker that is silent for so many seconds has lost its runs to the others.
AGENTOPS_LEASE_SECONDS = max(1.0, float(environment.number("AGENTOPS_LEASE_SECONDS", "20")))
# What cannot be undone starts so many seconds after the last approving vote; until then it can be taken back.
AGENTOPS_COOLING_OFF_SECONDS = max(0.0, float(environment.number("AGENTOPS_COOLING_OFF_SECONDS", "10")))
# A change whose effect was seen is looked at again after so many minutes.
AGENTOPS_RECHECK_MINUTES = environment.numbers("AGENTOPS_RECHECK_MINUTES", "5,30")
# Scripted faults of the simulator, for trying out what happens then; see docs/simulator.md.
AGENTOPS_SIMULATOR_FAULTS = environment.text("AGENTOPS_SIMULATOR_FAULTS", "")
# Seconds are multiplied by this in the simulator and the estate: 1 looks real, 0 does not wait.
AGENTOPS_PACE = float(environment.number("AGENTOPS_PACE", "1"))

# Telling people: where messages link to, what an attempt may take, who may be told in a private network.
AGENTOPS_URL = environment.address("AGENTOPS_URL")
AGENTOPS_NOTIFY_SECONDS = float(environment.number("AGENTOPS_NOTIFY_SECONDS", "10", least="0.5"))
AGENTOPS_WEBHOOK_PRIVATE = environment.private_network("AGENTOPS_WEBHOOK_PRIVATE")
MAILERS: dict[str, dict[str, Any]] = environment.mailers("AGENTOPS_MAIL", AGENTOPS_NOTIFY_SECONDS)
SILENCED_SYSTEM_CHECKS = ["mail.W001"]  # without AGENTOPS_MAIL there is no e-mail, and its channels say so
DEFAULT_FROM_EMAIL = environment.text("AGENTOPS_MAIL_FROM", "agentops@localhost")

# What this installation is called on statements; without a name, the host of its address.
AGENTOPS_NAME = environment.text("AGENTOPS_NAME", "") or AGENTOPS_URL.partition("://")[2] or "agentops"

AGENTS = "agentops.agents.AGENTS"  # what runs can be started with

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "django_htmx",
    "tools",
    "runs",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "runs.views.sign_in.SignInRequired",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "runs.views.errors.BusyDatabase",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "agentops.urls"
ASGI_APPLICATION = "agentops.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.csp",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "runs.views.frame.frame",
            ],
            "builtins": [f"runs.templatetags.{name}" for name in ("agentops", "may", "rows")],
        },
    }
]

DATABASE_URL = environment.text("DATABASE_URL", f"sqlite:///{DATA_DIR / 'agentops.sqlite3'}")
DATABASES: dict[str, dict[str, Any]] = {"default": environment.database("DATABASE_URL", DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        # Deferred transactions that upgrade to a write fail at once with "database is locked".
        "transaction_mode": "IMMEDIATE",
        # FULL: a committed START marker survives a power cut, and it measured no slower than NORMAL.
        "init_command": (
            "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA mmap_size=134217728;"
            "PRAGMA journal_size_limit=67108864;PRAGMA cache_size=-20000"
        ),
    }
    # The watcher and other processes open the file; an in-memory database could not be shared.
    DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / "test.sqlite3"}
else:
    # Threads share a few connections of the process; one that the server has closed is replaced unseen.
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    _options = DATABASES["default"].setdefault("OPTIONS", {})
    _options.setdefault("application_name", "agentops")
    _options["pool"] = {
        "min_size": 1,
        "max_size": max(4, int(environment.number("AGENTOPS_DATABASE_CONNECTIONS", "16"))),
        "timeout": 10,  # seconds that a thread waits for one; a page answers 503 then
        "max_idle": 60,
    }
    # Runs are driven by jobs there.
    INSTALLED_APPS.append("procrastinate.contrib.django")
    PROCRASTINATE_AUTODISCOVER_MODULE_NAME = ""

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

CSRF_FAILURE_VIEW = "runs.views.errors.csrf_failure"

LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "runs"
LOGOUT_REDIRECT_URL = "sign-in"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# Who guesses passwords has to wait. By name and address together: a stranger locks nobody out.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "runs.views.sign_in.too_many"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
SERVESTATIC_USE_FINDERS = True  # one service, no collectstatic step
SERVESTATIC_ALLOW_ALL_ORIGINS = False

SECURE_CSP = {
    "default-src": ["'self'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
if environment.flag("AGENTOPS_HTTPS", False):
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "filters": {"one_line": {"()": "agentops.logs.OneLine"}},
    # What a client did wrong is a line for whoever watches, not a traceback.
    "loggers": {
        "django.security.DisallowedHost": {"filters": ["one_line"]},
        "django.security.RequestDataTooBig": {"filters": ["one_line"]},
        "django.security.TooManyFieldsSent": {"filters": ["one_line"]},
        "django.request": {"filters": ["one_line"]},
        # When the database is gone, workers say so themselves, in one line.
        "procrastinate": {"level": "CRITICAL"},
        "psycopg.pool": {"level": "CRITICAL"},
    },
}
