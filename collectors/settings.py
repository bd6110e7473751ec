"""What a site sets for the node agent, read from PITWALL_* variables."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from collectors.errors import CollectorError


class AgentSettings(BaseSettings):
    """Settings of `pitwall agent`. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix="PITWALL_", extra="ignore", frozen=True)

    cluster: str = Field("default", min_length=1, max_length=253)
    node: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=253,
        description="Name of the Kubernetes node (spec.nodeName by the downward API).",
    )
    ingest_url: str = Field("http://127.0.0.1:8470", description="Where reports go.")
    ingest_ca_file: Path | None = Field(None, description="CA of ingest's certificate.")
    token_file: Path | None = Field(
        None, description="Audience-bound ServiceAccount token; read again as it is renewed."
    )
    spool_dir: Path = Field(Path("/var/lib/pitwall"), description="Reports not yet taken, state.")
    spool_max_bytes: int = Field(64 * 1024 * 1024, ge=64 * 1024)
    rules: Path | None = Field(None, description="Site's thresholds, a TOML file.")
    poll_interval_seconds: float = Field(5.0, gt=0)
    push_interval_seconds: float = Field(15.0, gt=0)
    nvml_timeout_seconds: float = Field(
        15.0, gt=0, description="NVML is called silent when it has not answered for so long."
    )
    nvml_slow_interval_seconds: float = Field(
        15.0, ge=0, description="How often modes, maxima, NVLinks and fabric are read."
    )
    xid_window_seconds: float = Field(
        5.0, ge=0, description="Repeats of an XID within this of the one before are one event."
    )
    kmsg_path: Path | None = Field(
        Path("/dev/kmsg"), description="Kernel log: /dev/kmsg or a file that syslog writes."
    )
    podresources_socket: Path | None = Field(
        Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        description="The kubelet's PodResources API, asked where the socket is there.",
    )
    infiniband_root: Path | None = Field(
        Path("/sys/class/infiniband"), description="Where the kernel shows InfiniBand adapters."
    )
    infiniband_interval_seconds: float = Field(15.0, gt=0)
    podresources_interval_seconds: float = Field(15.0, gt=0)
    metrics_host: str = "0.0.0.0"
    metrics_port: int = Field(9470, ge=0, le=65535)
    proc_root: Path = Path("/proc")
    request_timeout_seconds: float = Field(10.0, gt=0)
    backoff_first_seconds: float = Field(1.0, gt=0)
    backoff_longest_seconds: float = Field(60.0, gt=0)


class AgentSettingsError(CollectorError):
    """A PITWALL_* variable of the agent cannot be used; the text names it."""


def read_agent_settings() -> AgentSettings:
    """Return the settings in the environment. Raises AgentSettingsError naming the variable."""
    try:
        return AgentSettings()  # type: ignore[call-arg]  # all come from the environment
    except ValidationError as error:
        first = error.errors()[0]
        name = "PITWALL_" + str(first["loc"][0]).upper()
        raise AgentSettingsError(f"{name} cannot be used: {first['msg']}") from error
