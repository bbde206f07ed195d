"""The installation's secret: pseudonyms of learners, sealed raw text, signed prediction ids.

The key lies outside the home, is made once, and is shared by ingest and
replicas. Changing it changes every pseudonym, and so the snapshot digests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ray_jobs import store
from ray_jobs.errors import LyceumError

PSEUDONYM_BYTES = 12
MOST_KNOWN = 1 << 20  # learners whose pseudonyms are kept in memory
ALIAS = "~"  # begins what stands for a learner
SALT = b"lyceum-bucket-1"  # public: buckets agree between installations


@dataclass(frozen=True)
class Key:
    """32 secret bytes, never logged, and one sub-key per purpose."""

    secret: bytes = field(repr=False)

    def sub_key(self, purpose: str) -> bytes:
        """A key for one purpose, from which the secret cannot be had."""
        return hashlib.blake2b(purpose.encode(), key=self.secret, digest_size=32).digest()

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart and gives neither away."""
        return self.sub_key("fingerprint").hex()[:16]

    def hasher(self, purpose: str) -> Callable[[str], str]:
        """A keyed hash of texts, 24 hexadecimal digits, for one purpose."""
        keyed = hashlib.blake2b(key=self.sub_key(purpose), digest_size=PSEUDONYM_BYTES)

        def hashed(text: str) -> str:
            fresh = keyed.copy()
            fresh.update(text.encode())
            return fresh.hexdigest()

        return hashed

    def pseudonym(self, learner: str) -> str:
        """Keyed hash of a learner's id: the same id, the same pseudonym."""
        return self.hasher("pseudonym")(learner)

    def alias(self, learner: str) -> str:
        """What stands for a learner outside of tables: ingestion takes it for the learner."""
        text = f"{ALIAS}{self.pseudonym(learner)}.{_bucket(learner):016x}"
        return f"{text}.{self._signed('alias', text.encode())}"

    def of_alias(self, text: str) -> tuple[str, int] | None:
        """Pseudonym and bucket of an alias that a holder of this key made; None for a name."""
        named, _, signature = text.rpartition(".")
        genuine = text.startswith(ALIAS) and text.isascii()
        if not genuine or not hmac.compare_digest(self._signed("alias", named.encode()), signature):
            return None
        pseudonym, _, bucket = named.removeprefix(ALIAS).partition(".")
        return pseudonym, int(bucket, 16)

    def pseudonyms(self, learners: pl.Series) -> pl.Series:
        """The pseudonym of each learner id (String); null stays null."""
        return _mapped(learners, self.hasher("pseudonym"), pl.String())

    def seal(self, text: str) -> bytes:
        """Encrypt text with AES-256-GCM; the nonce stands before it."""
        return self.sealer()(text)

    def sealer(self) -> Callable[[str], bytes]:
        """What seals many texts."""
        cipher = AESGCM(self.sub_key("quarantine"))

        def seal(text: str) -> bytes:
            nonce = os.urandom(12)
            return nonce + cipher.encrypt(nonce, text.encode(), None)

        return seal

    def unseal(self, data: bytes) -> str:
        """The text that `seal` was given; raises LyceumError under another key."""
        try:
            text = AESGCM(self.sub_key("quarantine")).decrypt(data[:12], data[12:], None)
        except (InvalidTag, ValueError) as error:
            raise LyceumError(
                f"this text was sealed with another key than {self.fingerprint}, or is damaged; "
                "name the key file it was sealed with: LYCEUM_KEY_FILE"
            ) from error
        return text.decode()

    def signature(self, payload: bytes) -> str:
        """A signature that only holders of the key can make; 96 bits, URL-safe."""
        return self._signed("prediction", payload)

    def _signed(self, purpose: str, payload: bytes) -> str:
        digest = hmac.digest(self.sub_key(purpose), payload, "sha256")[:12]
        return base64.urlsafe_b64encode(digest).decode()


class Aliases:
    """Pseudonym and bucket of each learner met so far, so that each is made once."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._known = self._made(pl.Series([], dtype=pl.String))

    def replaced(self, rows: pl.DataFrame, column: str) -> pl.DataFrame:
        """Rows with pseudonyms in place of a column's ids, and a `bucket` (UInt64) beside them."""
        if len(self._known) > MOST_KNOWN:
            self._known = self._known.clear()
        rows = rows.rename({column: "name"})
        joined = self._joined(rows)
        new = joined.filter(pl.col("bucket").is_null())["name"].drop_nulls().unique()
        if len(new):
            self._known = pl.concat([self._known, self._made(new)])
            joined = self._joined(rows)
        return joined.drop("name").rename({"pseudonym": column})

    def _joined(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.join(self._known, on="name", how="left", maintain_order="left")

    def _made(self, names: pl.Series) -> pl.DataFrame:
        pseudonyms = self._key.pseudonyms(names).alias("pseudonym")
        made = pl.DataFrame([names.alias("name"), pseudonyms, buckets(names).alias("bucket")])
        known = [(name, self._key.of_alias(name)) for name in names if name.startswith(ALIAS)]
        meant = [(name, *told) for name, told in known if told]
        if not meant:
            return made
        return made.update(pl.DataFrame(meant, schema=made.schema, orient="row"), on="name")


def buckets(learners: pl.Series) -> pl.Series:
    """Public hash (UInt64) of each original learner id, for splits that agree everywhere."""
    return _mapped(learners, _bucket, pl.UInt64())


def salted(buckets_: pl.Series, salt: str) -> pl.Series:
    """Each bucket as a fraction in [0, 1), shuffled by a service's salt."""

    def one(bucket: int) -> float:
        digest = hashlib.blake2b(bucket.to_bytes(8, "big") + salt.encode(), digest_size=6)
        return int.from_bytes(digest.digest(), "big") / 2**48

    return _mapped(buckets_, one, pl.Float64())


def load_key(path: Path, *, make: bool = True) -> Key:
    """Read the key, or make one with mode 0600 where there is none and one may be made.

    Raises LyceumError when it cannot be read or written, or is not a key.
    """
    try:
        if not path.exists() and not make:
            raise LyceumError(
                f"no key in {path} of this node; lay the key there that the data was ingested "
                "with, or what is signed here could be read nowhere else"
            )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            store.write_secret(path, base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        secret = base64.b64decode(path.read_text().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise LyceumError(
            f"key file {path}: {error}; name another place with LYCEUM_KEY_FILE"
        ) from error
    if len(secret) != 32:
        raise LyceumError(f"key file {path} holds {len(secret)} bytes; expected 32 in base64")
    return Key(secret)


def _bucket(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), salt=SALT[:16], digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _mapped(values: pl.Series, function: Callable[[Any], Any], kind: pl.DataType) -> pl.Series:
    unique = values.unique().drop_nulls()
    images = pl.Series([function(v) for v in unique], dtype=kind)
    table = pl.DataFrame({"from": unique, "to": images})
    joined = values.to_frame("from").join(table, on="from", how="left", maintain_order="left")
    return joined["to"].alias(values.name)
