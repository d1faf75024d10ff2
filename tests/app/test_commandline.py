"""The command line: flags, commands, and what is refused in one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import __main__, __version__
from app.main import create_app
from app.settings import Settings, variable
from app.start import bulk, listener, preflight
from app.start.commandline import COMMANDS, NO_FLAG, explain, flag_of, parse
from app.start.listener import ListenError, listen, url_of
from app.start.preflight import PreflightError, check_device
from app.start.variables import MisspeltError, check_variables, closest, distance

ROOT = Path(__file__).parents[2]
VALUES = {
    "port": "9",
    "catalog": "own.toml",
    "device": "cpu",
    "dtype": "fp32",
    "kernels": "torch",
    "log_level": "debug",
    "log_format": "json",
}
SLOW = ("torch", "transformers", "fastapi", "uvicorn", "huggingface_hub")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in os.environ if one.upper().startswith("BLIP_")]:
        monkeypatch.delenv(name)


class CommandLine:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self._monkeypatch.setattr(sys, "argv", ["blip-serve", *arguments])
        try:
            code = __main__.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *self._capsys.readouterr()

    def refusal(self, *arguments: str, code: int = 2) -> str:
        ended, out, err = self(*arguments)
        (line,) = err.splitlines()
        assert (ended, out) == (code, "")
        return line.removeprefix("blip-serve: ")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


# --- flags ---


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in NO_FLAG])
def test_every_setting_is_a_flag(name: str, tmp_path: Path) -> None:
    if Settings.model_fields[name].annotation is bool:
        assert getattr(Settings(**parse([flag_of(name)]).flags), name) is True
        assert getattr(Settings(**parse([flag_of(f"no_{name}")]).flags), name) is False
        return
    (tmp_path / "keys").write_text("key\n")
    default = getattr(Settings(), name)
    own = {"api_keys_file": str(tmp_path / "keys"), "catalog": "own.toml", "cors_origins": "*"}
    own |= {
        "image_url_proxy": "http://proxy:3128",
        "image_url_hosts": "*.a.example",
        "image_url_private_hosts": "s:9000",
    }
    shown = own.get(name, VALUES.get(name, f"{default}"))
    for arguments in ([flag_of(name), shown], [f"{flag_of(name)}={shown}"], ["serve", flag_of(name), shown]):
        asked = parse(arguments)
        assert asked.command == "serve"
        value = getattr(Settings(**asked.flags), name)
        assert (",".join(value) if isinstance(value, tuple) else f"{value}") == shown


def test_a_flag_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP_PORT", "1")
    monkeypatch.setenv("BLIP_PROFILE", "blip-base")
    settings = Settings(**parse(["--port", "2"]).flags)
    assert (settings.port, settings.profile) == (2, "blip-base")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["9000"],
            "unknown command 9000; a port is --port 9000; there are serve, fetch, models, caption",
        ),
        (
            ["fetsh"],
            "unknown command fetsh (did you mean fetch?); there are serve, fetch, models, caption",
        ),
        (
            ["caption-all"],
            "unknown command caption-all; there are serve, fetch, models, caption",
        ),
        (["--prot", "9000"], "unknown option --prot (did you mean --port?)"),
        (["--por", "9000"], "unknown option --por (did you mean --port?)"),
        (["--colour=red"], "unknown option --colour"),
        (["-x"], "unknown option -x"),
        (["--port"], "--port: expected one argument"),
        (["fetch", "--port", "9000"], "--port is not for fetch"),
        (["models", "demo"], "demo is not for models"),
        (["caption"], "the following arguments are required: PATH"),
        (["caption", "a.png", "--colour"], "unknown option --colour"),
        (["caption", "a.png", "--text", "red"], "--text is not for caption"),
        (["caption", "a.png", "--num-beams", "many"], "--num-beams: invalid int value: 'many'"),
        (["caption", "a.png", "--existing", "keep"], "--existing: invalid choice: 'keep'"),
        (["vqa", "a.png"], "the following arguments are required: --question"),
        (["--port", "nine"], "--port: Input should be a valid integer"),
        (["--port", "70000"], "--port: Input should be less than or equal to 65535"),
        (["--device", "gpu"], "--device: it must be auto, cpu, cuda, cuda:N or mps"),
        (["--device", "cuda:x"], "--device: it must be"),
        (["--host", ""], "--host: String should have at least 1 character"),
        (["--dtype", "int4"], "--dtype: Input should be 'auto', 'fp32', 'bf16', 'fp16' or 'int8'"),
        (["--api-keys-file", "nothing"], "--api-keys-file: cannot read nothing: No such file or directory"),
        (["--stuck-seconds", "1"], "BLIP_STUCK_SECONDS must be above"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(command: CommandLine, arguments: list[str], told: str) -> None:
    assert command.refusal(*arguments).startswith(told)


@pytest.mark.parametrize(
    "arguments", [["--api-keys", "s3cret"], ["--api-keys=s3cret"], ["serve", "--api-keys", "s3cret"]]
)
def test_a_key_on_the_command_line_is_refused_and_not_told(command: CommandLine, arguments: list[str]) -> None:
    line = command.refusal(*arguments)
    assert "--api-keys-file" in line
    assert "s3cret" not in line


def test_an_error_names_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP_MAX_ITEMS", "none")
    flags = {"port": "none"}
    with pytest.raises(ValidationError) as caught:
        Settings(**flags)  # type: ignore[arg-type]
    told = explain(caught.value, flags)
    assert "--port: " in told
    assert "BLIP_MAX_ITEMS: " in told


# --- help, version, models ---


def test_help_lists_every_setting_and_command(command: CommandLine) -> None:
    code, text, _ = command("--help")
    assert code == 0
    assert all(f"  {flag_of(name)}" in text for name in Settings.model_fields if name not in NO_FLAG)
    assert all(f"\n    {name} " in text for name in COMMANDS)
    assert "BLIP_API_KEYS" in text
    assert "[8000]" in text
    assert max(map(len, text.splitlines())) <= 120
    assert "--port" in command("serve", "--help")[1]
    assert "PROFILE" in command("fetch", "--help")[1]


@pytest.mark.parametrize("name", bulk.COMMANDS)
def test_help_of_the_bulk_commands_names_each_flag(command: CommandLine, name: str) -> None:
    code, text, _ = command(name, "--help")
    flags = [one for group in bulk.FLAGS.values() for flag in group if name in flag.commands for one in flag.names]
    assert code == 0
    assert all(re.search(rf"^  .*{flag}\b", text, re.MULTILINE) for flag in flags)
    assert max(map(len, text.splitlines())) <= 120
    assert "exit codes: 0 " in text


def test_version(command: CommandLine) -> None:
    assert command("--version") == (0, f"blip-serve {__version__}\n", "")


ASKED = ["caption", "models/checkpoints/demo/example.png", "--url", "http://127.0.0.1:1", "--retries", "0"]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], ["--port", "nine"], ["caption", "--help"], ASKED]
)
def test_what_needs_no_model_imports_nothing_slow(arguments: list[str]) -> None:
    script = f"""
import runpy, sys
sys.argv = ["blip-serve", *{arguments}]
try:
    runpy.run_module("app", run_name="__main__")
finally:
    print("slow:", *(name for name in {SLOW} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "slow:"


def test_models_lists_what_the_catalog_has(command: CommandLine, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    (tmp_path / "weights").mkdir()
    own.write_text(
        '[profiles]\nmine = ["mine"]\n[models.mine]\nfamily = "blip"\n'
        'caption = { checkpoint = "weights" }\nmatch = { checkpoint = "some/one" }\n'
    )
    code, text, _ = command("models", "--catalog", str(own))
    assert code == 0
    lines = [re.sub(r" +", " ", line) for line in text.splitlines()]
    assert f"mine blip caption {tmp_path / 'weights'}" in lines
    assert "mine blip match, embed, capfilt some/one" in lines
    assert "blip2-opt blip2 caption, vqa Salesforce/blip2-opt-2.7b" in lines
    assert "blip-and-blip2 blip-base, blip2-opt" in lines


def test_a_catalog_that_is_not_there_is_one_line(command: CommandLine) -> None:
    for arguments in (["models"], ["serve"], ["fetch"]):
        assert command.refusal(*arguments, "--catalog", "no.toml", code=1).startswith("cannot read the catalog no.toml")


# --- variables ---


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BLIP_PROT", "BLIP_PORT"),
        ("BLIP_PORTS", "BLIP_PORT"),
        ("blip_devise", "BLIP_DEVICE"),
        ("BLIP_MAX_BATCHSIZE", "BLIP_MAX_BATCH_SIZE"),
        ("BLIP_APIKEYS", "BLIP_API_KEYS"),
        ("BLIP_API_KEY_FILE", "BLIP_API_KEYS_FILE"),
    ],
)
def test_a_misspelt_variable_is_refused(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert command.refusal() == f"there is no setting {name}; did you mean {meant}?"
    with pytest.raises(MisspeltError):
        create_app()


def test_other_variables_are_told_in_one_line(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLIP_COLOUR", "BLIP_ANOTHER", "BLIP_TARGET", "BLIP_SERVE_SERVICE_HOST", "UNRELATED"):
        monkeypatch.setenv(name, "1")
    code, _, told = command("models")
    (line,) = told.splitlines()
    assert code == 0
    assert line.endswith("WARNING blip: no settings of this service, so ignored: BLIP_ANOTHER, BLIP_COLOUR")


@pytest.mark.parametrize("keys", ["", "a-key"])
def test_a_key_that_the_service_does_not_ask_for_is_told(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    monkeypatch.setenv("BLIP_API_KEY", "a-key")
    monkeypatch.setenv("BLIP_API_KEYS", keys)
    monkeypatch.setenv("BLIP_PROFILE", "none-such")  # so that it ends
    _, _, told = command("serve")
    assert ("this service asks nobody for a key" in told) == (not keys)


@pytest.mark.parametrize(
    "name",
    [
        *("BLIP_TARGET", "BLIP_URL", "BLIP_API_KEY", "blip_port", "BLIP_SERVE_SERVICE_HOST", "BLIP_SERVE_SERVICE_PORT"),
        *(
            "BLIP_SERVE_SERVICE_PORT_HTTP",
            "BLIP_SERVE_PORT",
            "BLIP_SERVE_PORT_8000_TCP",
            "BLIP_SERVE_PORT_8000_TCP_ADDR",
        ),
        *("BLIP_PORT_8000_TCP_PROTO", "BLIP_SERVICE_HOST", "BLIP_P_PORT", "PATH"),
    ],
)
def test_what_is_known_is_not_told(name: str) -> None:
    assert check_variables({name: "tcp://10.0.0.1:8000"}) == []


def test_a_link_to_a_service_is_no_port(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLIP_PORT", "tcp://10.0.0.1:8000")
    assert "enableServiceLinks: false" in command.refusal()


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [("", "", 0), ("abc", "abc", 0), ("prot", "port", 2), ("", "ab", 2), ("abc", "abxc", 1)],
)
def test_distance(one: str, other: str, letters: int) -> None:
    assert distance(one, other) == distance(other, one) == letters
    assert closest(one, [other]) == other


def test_no_two_settings_are_taken_for_each_other() -> None:
    for name in Settings.model_fields:
        check_variables({variable(name): "1"})


# --- API keys ---


def test_keys_come_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("one\n\n  two \r\n")
    monkeypatch.setenv("BLIP_API_KEYS_FILE", str(tmp_path / "keys"))
    assert [key.get_secret_value() for key in Settings().api_keys] == ["one", "two"]
    monkeypatch.setenv("BLIP_API_KEYS", "zero")
    assert [key.get_secret_value() for key in Settings().api_keys] == ["zero", "one", "two"]
    assert "zero" not in repr(Settings())


@pytest.mark.parametrize(("held", "told"), [(b"\n \n", "holds no key"), (b"\xff\xfe", "not text"), (None, "directory")])
def test_a_file_without_keys_does_not_open_the_service(
    command: CommandLine, tmp_path: Path, held: bytes | None, told: str
) -> None:
    path = tmp_path / "keys"
    if held is None:
        path.mkdir()
    else:
        path.write_bytes(held)
    line = command.refusal("--api-keys-file", str(path))
    assert line.startswith("--api-keys-file: ")
    assert told in line


# --- the device and the port, before anything slow ---


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with NVIDIA's driver and two GPUs."""
    for number in range(2):
        (tmp_path / "gpus" / f"{number}").mkdir(parents=True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(preflight, "AMD", tmp_path / "kfd")
    monkeypatch.setattr(preflight, "_loads", lambda library: library == "libcuda.so.1")
    return tmp_path / "gpus"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_may_be_there(gpus: Path, device: str) -> None:
    check_device(device, gpus)


def test_a_device_that_is_not_there(gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreflightError, match="no device cuda:7: this machine has 2"):
        check_device("cuda:7", gpus)
    with pytest.raises(PreflightError, match="no device mps"):
        check_device("mps", gpus)
    check_device("cuda:7", gpus / "nothing")  # who cannot count does not refuse
    monkeypatch.setattr(preflight, "_loads", lambda _: False)
    with pytest.raises(PreflightError, match="no device cuda: this machine has no GPU driver"):
        check_device("cuda", gpus)
    (gpus.parent / "kfd").touch()
    check_device("cuda", gpus)


def test_a_library_that_is_not_there() -> None:
    assert not preflight._loads("libnothing.so.1")


@pytest.fixture
def taken() -> Iterator[int]:
    (one,) = listen("127.0.0.1", 0)
    with one:
        yield one.getsockname()[1]


def test_a_port_that_is_taken_is_one_line(command: CommandLine, taken: int) -> None:
    told = f"port {taken} is in use: choose another one with --port or BLIP_PORT (0: any free one)"
    assert command.refusal("--port", f"{taken}", code=1) == told


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.1", "this machine has no such address"),
        ("a..b", "no such host or address"),
        ("[::1]", "no such host or address"),
    ],
)
def test_a_host_that_is_not_here_is_one_line(command: CommandLine, host: str, told: str) -> None:
    assert command.refusal("--host", host, "--port", "0", code=1) == f"cannot listen on {host}: {told}"


@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_missing_is_one_line(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_loads", lambda _: False)
    assert command.refusal("--device", "cuda:7", code=1).startswith("there is no device cuda:7")


def test_a_port_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listener, "_open", refuse)
    with pytest.raises(ListenError, match="port 80 is for root alone"):
        listen("127.0.0.1", 80)


def test_every_address_of_a_name_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this machine does not have are passed over."""
    names = [("127.0.0.1", 0), ("192.0.2.1", 0), ("127.0.0.2", 0)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in names]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    opened = listen("a.name", 0)
    try:
        assert [one.getsockname()[0] for one in opened] == ["127.0.0.1", "127.0.0.2"]
        assert len({one.getsockname()[1] for one in opened}) == 1
    finally:
        for one in opened:
            one.close()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("0.0.0.0", 8000), "http://127.0.0.1:8000"),  # noqa: S104
        (("::", 8000, 0, 0), "http://[::1]:8000"),
        (("fd00::1", 80, 0, 0), "http://[fd00::1]:80"),
    ],
)
def test_the_address_can_be_opened(address: tuple[object, ...], url: str) -> None:
    class Listener:
        def getsockname(self) -> tuple[object, ...]:
            return address

    assert url_of(Listener()) == url  # type: ignore[arg-type]
