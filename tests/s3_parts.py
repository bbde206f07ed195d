"""A real object store for tests: SeaweedFS, its data on disk, with keys, buckets and conditions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from flows.platform.ports import any_free

WEED = Path(sys.executable).with_name("weed")
KEY, SECRET = "tests", "a secret of the tests"
PARTS = ("master", "volume", "filer", "s3")  # of a server; each listens twice
READY_S = 60.0
QUIET = Config(connect_timeout=1, read_timeout=10, retries={"total_max_attempts": 1})


@dataclass
class Server:
    """An object store, its data on disk, that comes back where it was."""

    folder: Path  # where its data lies
    ports: list[int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[-2]}"

    def start(self) -> None:
        """Until it keeps what it is given: it lets in before it has room."""
        identity = {"accessKey": KEY, "secretKey": SECRET}
        rights = {"name": KEY, "credentials": [identity], "actions": ["Admin"]}
        (self.folder / "identities.json").write_text(json.dumps({"identities": [rights]}))
        names = [f"-{part}.port{kind}" for part in PARTS for kind in ("", ".grpc")]
        options = [f"{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        command = [
            str(WEED), "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *options, f"-s3.config={self.folder / 'identities.json'}",
            "-s3.autoCreateBucket=false", "-s3.iam=false", "-s3.port.iceberg=0",
            "-admin.ui=false", "-webdav=false", "-master.telemetry=false",
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + READY_S
        while not self._has_room():
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail((self.folder / "log").read_text()[-3000:])
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _has_room(self) -> bool:
        try:
            self.bucket()
        except (BotoCoreError, ClientError):
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """What the storage's own tools read."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def client(self) -> Any:
        """A client that shares nothing with ours, as another process would be."""
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1", config=QUIET,
        )  # fmt: skip

    def bucket(self) -> str:
        """The URL of a new bucket, in which there is room."""
        name, client = f"bucket-{uuid4().hex}", self.client
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="room", Body=b"")
        client.delete_object(Bucket=name, Key="room")
        return f"s3://{name}"


@contextmanager
def serving(folder: Path, ports: list[int] | None = None) -> Iterator[Server]:
    """A server for as long as the block runs, on free ports, or on those of one before it."""
    server = Server(folder, ports or free_ports(2 * len(PARTS)))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no connection is given before we listen."""
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn.add(any_free("127.0.0.1"))
    return list(drawn)


@contextmanager
def known(**environment: str) -> Iterator[None]:
    """Clients of a server that the environment names, and none of those before or after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        yield
    S3FileSystem.clear_instance_cache()
