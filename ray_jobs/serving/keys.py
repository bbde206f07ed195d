"""Keys of clients: made and shown once, kept as hashes on the store, known to each replica.

A key is a file `<store>/keys/<id>.json`, its end another, `<id>.revoked`: nothing is
written twice, so that whoever lists the folder knows all, on any node. A secret is 256
random bits, so that one round of SHA-256 keeps it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import orjson

from ray_jobs import store
from ray_jobs.errors import LyceumError, UsageError
from ray_jobs.privacy import Key

log = logging.getLogger(__name__)

ACTIONS = ("predict", "feedback", "read")
EVERY = "*"  # service
SCHEME = "lyc"
OPERATOR = "lyo"  # of tokens that commands of the installation make for themselves
FRESH_S = 300.0  # how long such a token holds, and how far clocks may be apart
POLL_S = 0.5  # between two looks at the store
KNOWN_S = 2 * POLL_S  # after which every replica knows of a key, or of its end
ID_BYTES, SECRET_BYTES = 6, 32
SHOWN = 2 * ID_BYTES  # characters of what is said to be an id, which may be a secret


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; its secret is known to its owner alone."""

    id: str
    name: str  # whose it is, for people
    secret_sha256: str
    services: tuple[str, ...]  # or `*`
    actions: tuple[str, ...]
    created_s: float  # unix seconds
    expires_s: float | None = None  # unix seconds; None: never
    per_second: float = 0.0  # requests in the long run, by all replicas together; 0: no limit
    burst: float = 0.0  # requests at once

    def allows(self, service: str, action: str) -> bool:
        return action in self.actions and bool({service, EVERY} & set(self.services))

    def expired(self, now_s: float) -> bool:
        return self.expires_s is not None and now_s >= self.expires_s


def create(
    store_uri: str,
    name: str,
    services: Sequence[str],
    *,
    actions: Sequence[str] = ACTIONS,
    days: float = 0.0,
    per_second: float = 0.0,
    burst: float = 0.0,
) -> tuple[ApiKey, str]:
    """Make a key; returns it and the text that its owner sends, which is kept nowhere.

    Raises UsageError for a scope or a limit that lets nobody in.
    """
    unknown = [action for action in actions if action not in ACTIONS]
    if unknown or not actions or not services or not name.strip():
        raise UsageError(
            f"a key needs a name, a service and actions out of {', '.join(ACTIONS)}; given are "
            f"{name!r}, {', '.join(services) or 'no service'}, {', '.join(actions) or 'no action'}"
        )
    _must_let_in(days, per_second, burst)
    now, secret = time.time(), secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        id=secrets.token_hex(ID_BYTES),
        name=name.strip(),
        secret_sha256=_hashed(secret),
        services=tuple(services),
        actions=tuple(actions),
        created_s=now,
        expires_s=now + 86_400 * days if days else None,
        per_second=per_second,
        burst=(burst or max(1.0, per_second)) if per_second else 0.0,
    )
    store.write_json(_file(store_uri, key.id), asdict(key))
    return key, f"{SCHEME}_{key.id}_{secret}"


def _must_let_in(days: float, per_second: float, burst: float) -> None:
    limits = (days, per_second, burst)
    if not all(math.isfinite(number) and number >= 0 for number in limits):
        raise UsageError("days, requests per second and burst of a key are numbers from 0 on")
    if burst and not per_second:
        raise UsageError(f"a burst of {burst:g} needs a rate beside it; give --per-second too")
    if 0 < burst < 1:
        raise UsageError(f"a burst of {burst:g} lets nobody in; give 1 or more")


def id_of(text: str) -> str:
    """The id of a key, by which it is spoken of; of a whole key the part that is no secret."""
    scheme, _, rest = text.strip().partition("_")
    return rest.partition("_")[0] if scheme == SCHEME else text.strip()


def revoke(store_uri: str, id_: str) -> ApiKey:
    """End a key for good; raises UsageError where there is none of that id."""
    known = {key.id: key for key, _ in listed(store_uri)}
    if id_ not in known:
        raise UsageError(f"no key {id_[:SHOWN]!r}; lyceum keys list tells which there are")
    store.write_bytes(_mark(store_uri, id_), b"")
    return known[id_]


def listed(store_uri: str) -> list[tuple[ApiKey, bool]]:
    """Every key ever made, the oldest first, and whether it was revoked."""
    ring = Keyring(store_uri)
    ring.refresh()
    return sorted(
        ((key, key.id in ring.revoked) for key in ring.keys.values()),
        key=lambda pair: pair[0].created_s,
    )


class Keyring:
    """The keys as they stand on the store, looked at again and again by a thread of its own.

    While the store is away what was known last holds: a service does not end
    because a disk is slow. How old that is says `age_s`.
    """

    def __init__(self, store_uri: str, clock: Callable[[], float] = time.time) -> None:
        self.folder = _folder(store_uri)
        self.clock = clock
        self.keys: dict[str, ApiKey] = {}
        self.revoked: set[str] = set()
        self.unread: set[str] = set()  # ids of files that hold no key that we know to read
        self.seen_s = 0.0  # by the monotonic clock
        self._stop = threading.Event()

    def refresh(self) -> None:
        """Read what is new; raises StoreError or RemoteError where the store cannot be read."""
        names = store.sizes(self.folder)
        self.revoked |= {_id(name) for name in names if name.endswith(".revoked")}
        known = {*self.keys, *self.unread}
        for name in names:
            if name.endswith(".json") and _id(name) not in known:
                self._read(name)
        self.seen_s = time.monotonic()

    def start(self) -> None:
        """Look now, or raise, and from now on."""
        self.refresh()
        threading.Thread(target=self._look, name="keys", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    @property
    def age_s(self) -> float:
        """How long ago the store was read."""
        return time.monotonic() - self.seen_s

    def find(self, text: str) -> ApiKey | None:
        """The key of a text that may be used now, or None, in the same time whatever is wrong."""
        scheme, _, rest = text.partition("_")
        id_, _, secret = rest.partition("_")
        key = self.keys.get(id_, NOBODY)
        genuine = hmac.compare_digest(_hashed(secret), key.secret_sha256)
        ended = id_ in self.revoked or key.expired(self.clock())
        usable = genuine and scheme == SCHEME and key is not NOBODY and not ended
        return key if usable else None

    def _read(self, name: str) -> None:
        data = store.read_bytes(store.join(self.folder, name))
        try:
            values = orjson.loads(data)
            # A later Lyceum may say more of a key.
            known = {one.name: values[one.name] for one in fields(ApiKey)}
            lists = {part: tuple(values[part]) for part in ("services", "actions")}
            self.keys[_id(name)] = ApiKey(**{**known, **lists})
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            # One that cannot be read lets nobody in, and must not hide those behind it.
            log.warning("keys: %s is no key (%s)", name, type(error).__name__)
            self.unread.add(_id(name))

    def _look(self) -> None:
        away = False
        while not self._stop.wait(POLL_S):
            try:
                self.refresh()
            except (LyceumError, OSError) as error:
                if not away:
                    log.warning("keys: %s; those known before hold", error)
                away = True
            else:
                away = False


def operator_token(key: Key) -> str:
    """What lets a command of the installation in for some minutes, made from its secret."""
    now = str(int(time.time()))
    return f"{OPERATOR}_{now}_{_signed(key, now)}"


def is_operator(key: Key, text: str, now_s: float) -> bool:
    """Whether a holder of the installation's secret made this token, just now."""
    scheme, _, rest = text.partition("_")
    made, _, signature = rest.partition("_")
    genuine = hmac.compare_digest(_signed(key, made), signature)
    return genuine and scheme == OPERATOR and abs(now_s - int(made)) < FRESH_S


def of_header(value: bytes) -> str:
    """The text of `Authorization: Bearer ...`; empty for another scheme, or for none."""
    scheme, _, text = value.partition(b" ")
    if scheme.lower() != b"bearer" or not text.isascii():
        return ""
    return text.strip().decode("ascii")


def _signed(key: Key, made: str) -> str:
    return hmac.new(key.sub_key("operator"), made.encode(), "sha256").hexdigest()


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _folder(store_uri: str) -> str:
    return store.join(store_uri, "keys")


def _file(store_uri: str, id_: str) -> str:
    return store.join(_folder(store_uri), f"{id_}.json")


def _mark(store_uri: str, id_: str) -> str:
    return store.join(_folder(store_uri), f"{id_}.revoked")


def _id(name: str) -> str:
    return name.partition(".")[0]


# Stands for whoever is unknown, so that looking for them takes as long.
NOBODY = ApiKey("", "", _hashed(secrets.token_urlsafe(SECRET_BYTES)), (), (), 0.0)
