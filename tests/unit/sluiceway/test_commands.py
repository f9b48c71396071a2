"""Commands by entry point: a client alone has its own, and says of the others what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sluiceway.cli.app import app
from sluiceway.installation import install_command

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = PROJECT["project"]["entry-points"]["sluiceway.commands"]
SERVERS = ("sluiceway_runtime", "sluiceway_detection", "sluiceway_recognition", "sluiceway_orchestrator")
# The command where some modules cannot be imported.
WITHOUT = textwrap.dedent(
    """
    import sys

    for name in sys.argv.pop(1).split(","):
        sys.modules[name] = None
    sys.argv[0] = "sluiceway"
    from sluiceway.cli.app import main
    main()
    """
)


def without(modules: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, ",".join(modules), *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def listed(help_text: str) -> set[str]:
    return {words[1] for line in help_text.splitlines() if len(words := line.split()) > 2 and line.startswith("│")}


def test_the_installed_commands_are_those_of_the_project() -> None:
    installed = {entry.name: entry.value for entry in metadata.entry_points(group="sluiceway.commands")}
    assert installed == COMMANDS, "install anew: entry points are read from the installation"
    [embedded] = metadata.entry_points(group="sluiceway.embedded")
    assert callable(embedded.load())


def test_all_are_listed_where_servers_are_installed() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert {"run", "version", *COMMANDS} <= listed(result.output)


OF_COMMANDS = [
    *("models list", "models pull", "models path", "models rm", "models calibrate"),
    *("samples pull", "config show"),
]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert f"sluiceway {name}" in result.output.replace("root", "sluiceway")


EVERY = ["run", "version", *sorted(COMMANDS), *OF_COMMANDS]


@pytest.mark.parametrize("name", EVERY)
def test_help_shows_every_word_of_what_is_written(name: str) -> None:
    """Rich takes what stands in brackets for a style, and drops it: `sluiceway[cpu]`, `[stages.NAME]`."""
    command = get_command(app)
    with command.make_context("sluiceway", [], resilient_parsing=True) as context:
        for word in name.split():
            command = command.get_command(context, word)  # type: ignore[attr-defined]
    written = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "250", "TERM": "dumb"})
    shown = set(re.sub("[│╭╮╰╯─]", " ", result.output).split())
    for text in written:
        plain = re.sub(r"\[/?(dim|bold)?\]", "", text).replace("\\[", "[")
        lost = [word for word in plain.split() if word not in shown]
        assert not lost, f"{name}: {text}"


@pytest.mark.parametrize("name", OF_COMMANDS)
def test_commands_of_commands(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert f" {name} " in result.output


# What a client is installed without, and what cannot be imported where the packages of servers are not there at all.
ALONE = {
    "dependencies": ("prometheus_client", "aiohttp", "cv2", "numpy"),
    "packages": ("sluiceway_cluster", *SERVERS, "cv2"),
}


@pytest.mark.parametrize("missing", ALONE.values(), ids=ALONE.keys())
def test_a_client_alone_has_its_own_commands(missing: tuple[str, ...]) -> None:
    done = without(missing, "--help")
    assert done.returncode == 0, done.stderr
    assert {"run", "version"} <= listed(done.stdout)
    assert not set(COMMANDS) & listed(done.stdout)
    assert without(missing, "version").returncode == 0


@pytest.mark.parametrize("missing", ALONE.values(), ids=ALONE.keys())
@pytest.mark.parametrize(
    "arguments", [["up"], ["doctor"], ["serve", "detection"], ["models", "list"], ["run", "x.png"]]
)
def test_a_client_alone_says_what_to_install(missing: tuple[str, ...], arguments: list[str]) -> None:
    done = without(missing, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "only the client is installed" in done.stderr
    assert install_command("cpu") in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_version_in_a_line() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"sluiceway {metadata.version('sluiceway')}\n")


def test_a_command_that_nobody_has_is_no_matter_of_installing() -> None:
    done = without(("cv2",), "dance")
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["up", "--help"]])
def test_help_imports_no_server(arguments: list[str]) -> None:
    """Nor any library of theirs, or it would take seconds."""
    heavy = (*SERVERS, "numpy", "cv2", "openvino", "aiohttp")
    code = f"import sys; sys.argv = ['sluiceway', *{arguments!r}]\n" + textwrap.dedent(
        f"""
        from sluiceway.cli.app import app
        try:
            app()
        except SystemExit as end:
            assert not end.code
        assert not set({heavy!r}) & set(sys.modules), set({heavy!r}) & set(sys.modules)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wheel_has_every_package() -> None:
    """Each source root is installed, in a checkout and from a wheel."""
    roots = PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]
    found = {
        str(path.parent.relative_to(ROOT)) for root in roots for path in (ROOT / root).glob("sluiceway*/__init__.py")
    }
    assert found == set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    sources = (ROOT / ".dockerignore").read_text().splitlines()
    packaged = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for top in {Path(name).parts[0] for name in found}:
        assert f"COPY {top} {top}\n" in dockerfile
        assert f"!{top}" in sources
        assert f"/{top}" in packaged
    assert set(PROJECT["tool"]["mypy"]["packages"]) == {Path(name).name for name in found}
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == {Path(name).name for name in found}
