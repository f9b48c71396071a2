"""What the tests of the clients share: the built programs, a scripted server, and certificates for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import scripted_pipeline
from tests.clients.scripted_pipeline import ScriptedPipeline

CLIENTS = Path(__file__).parents[2] / "clients"
PROGRAMS = ("python", "python-async", "go", "typescript", "cpp", "java", "ruby", "shell")
RUN_S = 60


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell what the clients were built with: the table in docs/clients.md is written from this."""
    if config.option.markexpr != "clients":
        return
    terminalreporter.section("versions")
    for language in dict.fromkeys(program.split("-", maxsplit=1)[0] for program in PROGRAMS):
        command = ["make", "--silent", "--no-print-directory", "-C", str(CLIENTS / language), "version"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
        terminalreporter.write_line(f"{language}: {'; '.join(line.strip() for line in told if line.strip())}")


@dataclass(frozen=True)
class Output:
    """What a client printed, as fields of lines."""

    exit_code: int
    lines: list[list[str]]
    stderr: str

    def of(self, kind: str) -> list[list[str]]:
        """The lines of one kind, without the kind."""
        return [line[1:] for line in self.lines if line[0] == kind]


def code_name(code: str) -> str:
    """A status code in any language's spelling (`ResourceExhausted`, `RESOURCE_EXHAUSTED`) in one."""
    return code.replace("_", "").lower()


@pytest.fixture(scope="session", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Path:
    """The built client of one language."""
    return build(request.param)


def build(language: str) -> Path:
    """Generate stubs and build, as the client's README tells; make does it once."""
    made = subprocess.run(
        ["nice", "make", "-C", CLIENTS / language.split("-", maxsplit=1)[0]],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    return CLIENTS / "build" / language / "sluiceway-client"


@pytest.fixture
def pipeline() -> ScriptedPipeline:
    return ScriptedPipeline()


@pytest.fixture
def address(pipeline: ScriptedPipeline) -> Iterator[str]:
    """A server without TLS."""
    server, address = scripted_pipeline.start(pipeline)
    yield address
    server.stop(None).wait()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Files for the scripted server, which does not look into them."""
    paths = [tmp_path / f"{index}.png" for index in range(8)]
    for index, path in enumerate(paths):
        path.write_bytes(b"x" * (index + 1))
    return paths


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server.pem and client.pem with their keys, valid for a day.

    The servers of a cluster show theirs to each other as well.
    """
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name, purpose in (("server", "serverAuth,clientAuth"), ("client", "clientAuth")):
        (folder / "extensions").write_text(
            f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={purpose}\nbasicConstraints=CA:FALSE\n"
        )
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "1", "-extfile", "extensions", "-out", f"{name}.pem"),
        )
    return folder


Run = Callable[..., Output]


@pytest.fixture
def run(program: Path, address: str) -> Run:
    """Run the client on files; `server` and `token` are the scripted server and none unless told otherwise."""

    def run(*arguments: object, server: str = address, token: str | None = None) -> Output:
        return run_client(program, *arguments, server=server, token=token)

    return run


def run_client(program: Path, *arguments: object, server: str, token: str | None = None) -> Output:
    """Run one client to its end."""
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    if token is not None:
        environment["SLUICEWAY_TOKEN"] = token
    command = [program, "--address", server, *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=RUN_S, check=False
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return Output(done.returncode, lines, done.stderr)
