"""The settings of the TOML file, as values: every key, its type, its bounds, its reload action.

Owns the meaning of the keys.  Reading a file and telling its mistakes is
``supervisor.settings.file``; nothing here touches the machine.

Each key of a kernel carries its *reload action*, what an edit of it does to a
running kernel: ``live`` takes effect at once and the kernel never notices,
``next-start`` at its next start, ``restart`` restarts it, because the running
process cannot change it.  ``daemon`` needs a new daemon.
"""

from collections.abc import Container, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, Struct
from msgspec.structs import replace

Reload = Literal["live", "next-start", "restart", "daemon"]
CheckAction = Literal["report", "restart", "off"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
KERNELSPEC_PATTERN = r"^[A-Za-z0-9._-]+$"  # jupyter_client's kernelspec._kernel_name_pat
MODULE_PATTERN = r"^[^\W\d]\w*(\.[^\W\d]\w*)*$"
SIZE_PATTERN = r"^[1-9][0-9]{0,14}[KMGT]?$"
CONNECTION_FILE = "{connection_file}"

# What may happen, as it is told in the log (DESIGN: Events); hooks choose among them.
EVENTS = (
    *("daemon.started", "daemon.stopping", "daemon.stopped", "daemon.detached"),
    *("config.loaded", "config.rejected"),
    *("kernel.starting", "kernel.ready", "kernel.died", "kernel.restarting", "kernel.stopping"),
    *("kernel.stopped", "kernel.failed", "kernel.unresponsive", "kernel.responsive", "kernel.adopted"),
    *("kernel.interrupted", "kernel.signalled", "kernel.removed", "kernel.escaped", "kernel.waiting"),
    *("kernel.queued", "kernel.begun", "kernel.expiring"),
    "kernel.restored",
    "kernel.pressed",
)

Text = Annotated[str, Meta(min_length=1)]
Words = Annotated[tuple[str, ...], Meta(min_length=1)]
Size = Annotated[str, Meta(pattern=SIZE_PATTERN)]
SpecName = Annotated[str, Meta(pattern=KERNELSPEC_PATTERN)]


def _key(reload: Reload, description: str, schema: dict[str, Any] | None = None, **bounds: Any) -> Meta:
    return Meta(description=description, extra={"reload": reload}, extra_json_schema=schema, **bounds)


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=None):
    """What all tables of the file have in common: values, never changed, no unknown keys."""


class BackoffConfig(Settings, frozen=True):
    """How long to wait before a kernel that died is started again, in seconds."""

    initial: Annotated[float, Meta(description="delay after the first death", ge=0)] = 0.0
    next: Annotated[float, Meta(description="delay after the second death", ge=0)] = 0.5
    factor: Annotated[float, Meta(description="each later delay is this times the one before", ge=1)] = 2.0
    max: Annotated[float, Meta(description="no delay is longer", ge=0)] = 60.0
    jitter: Annotated[float, Meta(description="share by which a delay varies", ge=0, le=1)] = 0.2


class HeartbeatConfig(Settings, frozen=True):
    """Asking the heartbeat channel, which most kernels answer even while they execute."""

    interval: Annotated[float, Meta(description="seconds between two", ge=0.05)] = 5.0
    misses: Annotated[int, Meta(description="unanswered in a row until it counts as unresponsive", ge=1)] = 3
    action: Annotated[CheckAction, Meta(description="what to do then")] = "report"


class ProbeConfig(Settings, frozen=True):
    """Asking ``kernel_info`` on the control channel."""

    interval: Annotated[float, Meta(description="seconds between two", ge=0.05)] = 10.0
    misses: Annotated[int, Meta(description="unanswered in a row until it counts as unresponsive", ge=1)] = 6
    action: Annotated[CheckAction, Meta(description="what to do then")] = "report"


class RecorderConfig(Settings, frozen=True):
    """What Jupyter's programs are given of the output that a kernel made while no page was open."""

    max_bytes: Annotated[int, Meta(description="the oldest goes first; 0: nothing is recorded", ge=0)] = (
        10_485_760
    )
    max_age: Annotated[float, Meta(description="seconds after which it is forgotten", gt=0)] = 604_800.0


Port = Annotated[int, Meta(ge=0, le=65535, description="0: chosen once, then kept")]


class PortsConfig(Settings, frozen=True):
    """The five ports of a kernel; 0 means chosen once, then kept."""

    shell: Port = 0
    iopub: Port = 0
    stdin: Port = 0
    control: Port = 0
    hb: Port = 0


class OutputConfig(Settings, frozen=True):
    """The file with the kernel's own stdout and stderr."""

    max_bytes: Annotated[int, Meta(description="rotated when larger; 0: never", ge=0)] = 10_485_760
    backups: Annotated[int, Meta(description="rotated files that are kept", ge=0, le=100)] = 3


def size_of(text: str | None) -> int | None:
    """The bytes of a size, such as "48G"."""
    if text is None:
        return None
    number, unit = text.rstrip("KMGT"), text.lstrip("0123456789")
    return int(number) << 10 * " KMGT".index(unit or " ")


class LimitsConfig(Settings, frozen=True):
    """What a kernel may use of the machine with all of its children; needs a cgroup (docs/systemd.md)."""

    memory: Annotated[Size | None, Meta(description='bytes, or such as "48G"')] = None
    cpu: Annotated[Annotated[float, Meta(ge=0.01)] | None, Meta(description="processors, such as 1.5")] = None
    tasks: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="processes and threads")] = None
    warn: Annotated[
        float, Meta(description="share of memory at which kernel.pressed is told", gt=0, le=1)
    ] = 0.9


class StandbyConfig(Settings, frozen=True):
    """The spare kernel that is parked behind a running one."""

    max_age: Annotated[float, Meta(description="seconds after which it is renewed", gt=0)] = 3600.0


class SlurmConfig(Settings, frozen=True):
    """What a kernel asks of Slurm that runs as a job of it (docs/machines.md), in the words of sbatch(1)."""

    directory: Annotated[
        Text | None,
        Meta(description="a directory of ours that this machine and the nodes share; ~ is expanded"),
    ] = None
    partition: Annotated[Text | None, Meta(description="default: the cluster's")] = None
    account: Annotated[Text | None, Meta(description="who is charged")] = None
    qos: Annotated[Text | None, Meta(description="quality of service")] = None
    time: Annotated[Text | None, Meta(description='limit of time, minutes or such as "2-00:00:00"')] = None
    memory: Annotated[Size | None, Meta(description='bytes, or such as "60G"')] = None
    cpus: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="processors")] = None
    gpus: Annotated[Text | None, Meta(description='how many, or such as "a100:2"')] = None
    constraint: Annotated[Text | None, Meta(description="features of the node")] = None
    nodelist: Annotated[Text | None, Meta(description="the nodes to choose from")] = None
    extra: Annotated[tuple[str, ...], Meta(description="further options of sbatch")] = ()
    setup: Annotated[tuple[str, ...], Meta(description="lines of shell on the node, before the kernel")] = ()
    python: Annotated[Text, Meta(description="a Python 3.6 or newer on the nodes, for our own script")] = (
        "python3"
    )
    via: Annotated[
        Literal["direct", "ssh"], Meta(description="how it is reached: by TCP, or by ssh, encrypted")
    ] = "direct"
    queue_timeout: Annotated[
        float, Meta(description="seconds that it may wait in the queue; 0: any time", ge=0)
    ] = 0.0


# The end of a job is the cluster's doing: it is asked for again only so often, in seconds.
CANCEL_PATIENCE = 60.0


class KernelConfig(Settings, frozen=True):
    """The settings of one kernel, ``[kernels.NAME]``; spans are in seconds."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN, description="the NAME of [kernels.NAME]")]
    kernelspec: Annotated[SpecName | None, _key("restart", "an installed kernelspec (or give argv)")] = None
    argv: Annotated[
        Words | None,
        _key(
            "restart",
            "the command; must contain {connection_file}",
            schema={
                "contains": {"type": "string", "pattern": r"\{connection_file\}"},
                "items": {"minLength": 1},
            },
        ),
    ] = None
    extra_arguments: Annotated[tuple[str, ...], _key("restart", "appended to the command")] = ()
    interrupt_mode: Annotated[
        Literal["signal", "message"] | None, _key("live", "how to interrupt; default: the kernelspec's")
    ] = None
    user: Annotated[
        Text | None, _key("restart", "the account that it runs as, of a daemon that runs as root")
    ] = None
    cwd: Annotated[
        Text, _key("restart", "working directory, relative to that of the file; ~ is expanded")
    ] = "~"
    env: Annotated[
        dict[str, str],
        _key(
            "restart",
            "added to the environment; ${VAR} is filled in",
            schema={"propertyNames": {"pattern": "^[^=]+$", "not": {"const": "JPY_PARENT_PID"}}},
        ),
    ] = {}
    enabled: Annotated[bool, _key("live", "false: declared, but not run")] = True
    autostart: Annotated[bool, _key("next-start", "start it with the daemon")] = True
    on_config_change: Annotated[
        Literal["restart", "when-idle", "manual"], _key("live", "when an edit that needs a restart gets it")
    ] = "restart"
    restart: Annotated[Literal["always", "on-failure", "never"], _key("live", "after which deaths")] = (
        "always"
    )
    max_restarts: Annotated[
        int, _key("live", "deaths within restart_window before it is failed; 0: no limit", ge=0)
    ] = 5
    restart_window: Annotated[float, _key("live", "seconds in which deaths are counted", gt=0)] = 120.0
    backoff: Annotated[BackoffConfig, _key("live", "delays before restarts")] = BackoffConfig()
    start_timeout: Annotated[float, _key("live", "alive but not ready by then is a failed start", gt=0)] = (
        60.0
    )
    stop_timeout: Annotated[float, _key("live", "asked politely this long, then signals", ge=0)] = 10.0
    heartbeat: Annotated[HeartbeatConfig, _key("live", "the heartbeat check")] = HeartbeatConfig()
    probe: Annotated[ProbeConfig, _key("live", "the control-channel check")] = ProbeConfig()
    transport: Annotated[Literal["tcp", "ipc"], _key("restart", "how clients connect")] = "tcp"
    ip: Annotated[Text, _key("restart", "address that the kernel listens on")] = "127.0.0.1"
    ports: Annotated[PortsConfig, _key("restart", "0: chosen once, then kept")] = PortsConfig()
    hold_ports: Annotated[bool, _key("next-start", "keep the ports from others while it is down")] = True
    warm_start: Annotated[
        Literal["off", "prepared", "fork", "standby"], _key("next-start", "how an ipykernel is started")
    ] = "off"
    preload: Annotated[
        tuple[Annotated[str, Meta(pattern=MODULE_PATTERN)], ...],
        _key("next-start", "modules that are imported before it is forked"),
    ] = ()
    startup: Annotated[Text | None, _key("next-start", "code that is run before it is ready")] = None
    startup_file: Annotated[
        Text | None, _key("next-start", "a file with such code, relative to this one; ~ is expanded")
    ] = None
    reconnect_grace: Annotated[
        float, _key("next-start", "seconds after a death until requests are served", ge=0, le=10)
    ] = 0.215
    standby: Annotated[StandbyConfig, _key("live", "the spare kernel")] = StandbyConfig()
    executing: Annotated[bool, _key("next-start", "keep on record what is executed")] = True
    output: Annotated[OutputConfig, _key("live", "the kernel's own stdout and stderr")] = OutputConfig()
    limits: Annotated[LimitsConfig, _key("live", "what it may use; default: no limits")] = LimitsConfig()
    nice: Annotated[
        Annotated[int, Meta(ge=-20, le=19)] | None,
        _key("live", "its share of a busy processor, 19: the least; default: that of the daemon"),
    ] = None
    oom_score_adj: Annotated[
        Annotated[int, Meta(ge=-1000, le=1000)] | None,
        _key("live", "1000: a lack of memory takes it first; default: that of the daemon"),
    ] = None
    kill_mode: Annotated[
        Literal["tree", "group"], _key("live", "whom its end takes along: all of its processes, or its group")
    ] = "tree"

    slurm: Annotated[
        SlurmConfig | None, _key("restart", "run it as a job of Slurm, reached at the same address")
    ] = None

    display_name: Annotated[Text | None, _key("live", "its name in Jupyter; default: its own name")] = None
    on_client_shutdown: Annotated[
        Literal["detach", "stop"], _key("live", "what the shutdown of it in a Jupyter program does")
    ] = "detach"
    recorder: Annotated[RecorderConfig, _key("live", "output recorded by the Jupyter server")] = (
        RecorderConfig()
    )

    @property
    def longest_stop(self) -> float:
        """How many seconds it is given until nobody waits for its orderly end any more."""
        return self.stop_timeout + (CANCEL_PATIENCE if self.slurm is not None else 0.0)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The keys and values, of the environment its names only: its values may be secrets."""
        shown = {key: getattr(self, key) for key in self.__struct_fields__}
        return list((shown | {"env": dict.fromkeys(self.env, "…")}).items())

    def __repr__(self) -> str:
        """Spell the settings, without the values of the environment."""
        return f"KernelConfig({', '.join(f'{key}={value!r}' for key, value in self.__rich_repr__())})"


class SupervisorConfig(Settings, frozen=True):
    """The table ``[supervisor]``; ``None`` means the default place (see the README)."""

    runtime_dir: Annotated[Text | None, _key("daemon", "directory of the connection files")] = None
    state_dir: Annotated[Text | None, _key("daemon", "records, lock, logs")] = None
    socket: Annotated[Text | None, _key("daemon", "the control socket")] = None
    operators: Annotated[
        Text | None, _key("live", "group whose members may give orders, and see all that is told")
    ] = None
    readers: Annotated[Text | None, _key("live", "group whose members may see how the kernels are")] = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _key("live", "least level logged")] = (
        "info"
    )
    log_format: Annotated[Literal["auto", "json", "console"], _key("daemon", "form of the log")] = "auto"
    on_exit: Annotated[Literal["stop", "keep"], _key("live", "what an orderly exit does to the kernels")] = (
        "stop"
    )
    max_concurrent_starts: Annotated[int, _key("live", "kernels starting at a time", ge=1)] = 4


class HookConfig(Settings, frozen=True):
    """A command that is told of events, one of ``[[hooks]]``; it gets the event as JSON on its stdin."""

    events: Annotated[Words, Meta(description='of which events, such as "kernel.died" or "kernel.*"')]
    command: Annotated[
        Words, Meta(description="what is run; a relative path begins at the directory of the file")
    ]
    kernels: Annotated[Words, Meta(description='of which kernels, names or patterns such as "train-*"')] = (
        "*",
    )
    timeout: Annotated[float, Meta(description="it is ended after so many seconds", gt=0)] = 30.0
    name: Annotated[Text | None, Meta(description="how it is called; default: its program")] = None

    @property
    def label(self) -> str:
        """How messages and ``hooks test`` call it: its name, or else its program."""
        return self.name or self.command[0].rpartition("/")[2]


class Config(Settings, frozen=True):
    """A whole file: the daemon's settings, the hooks, and the kernels in the order of the file."""

    supervisor: SupervisorConfig = SupervisorConfig()
    hooks: tuple[HookConfig, ...] = ()
    kernels: dict[str, KernelConfig] = {}


class File(Settings, frozen=True):
    """The tables of a file as written, before ``[defaults]`` and ``include`` are applied."""

    include: Annotated[
        tuple[str, ...],
        _key("live", 'files with more kernels, relative to this one, such as "kernels.d/*.toml"'),
    ] = ()
    supervisor: Annotated[SupervisorConfig, Meta(description="the daemon itself")] = SupervisorConfig()
    hooks: Annotated[tuple[HookConfig, ...], _key("live", "commands that are told of events")] = ()
    defaults: Annotated[dict[str, Any], Meta(description="any key of a kernel, for all of them")] = {}
    kernels: Annotated[dict[str, dict[str, Any]], Meta(description="the kernels, by name")] = {}


def reload_actions(table: type[Settings]) -> Mapping[str, Reload]:
    """The reload action of each key of a table, read off the declarations above."""
    found: dict[str, Reload] = {}
    for key, annotation in get_type_hints(table, include_extras=True).items():
        for note in getattr(annotation, "__metadata__", ()):
            if "reload" in (note.extra or {}):
                found[key] = note.extra["reload"]
    return found


RELOAD_ACTIONS: Mapping[str, Reload] = reload_actions(KernelConfig)
LAUNCH_KEYS: tuple[str, ...] = tuple(key for key, action in RELOAD_ACTIONS.items() if action == "restart")
# What the file says of a death, whenever the run that ended was launched.
DEATH_KEYS = ("restart", "max_restarts", "restart_window", "backoff")


def changed_keys(
    old: KernelConfig, new: KernelConfig, of: Container[Reload] = ("live", "next-start", "restart")
) -> tuple[str, ...]:
    """The keys in which two settings of a kernel differ, of those with such a reload action."""
    return tuple(
        key
        for key, action in RELOAD_ACTIONS.items()
        if action in of and getattr(old, key) != getattr(new, key)
    )


def changed_launch_keys(old: KernelConfig, new: KernelConfig) -> tuple[str, ...]:
    """The keys in which they differ and that a running process cannot change."""
    return changed_keys(old, new, ("restart",))


def judged_by(config: KernelConfig, declared: KernelConfig) -> KernelConfig:
    """The same settings with what ``declared`` says of a death."""
    return replace(config, **{key: getattr(declared, key) for key in DEATH_KEYS})
