"""What a site sets, read from PITWALL_* variables; see docs/settings.md.

The demo leaves its addresses in .demo/pitwall.env, which is read when present so that the CLI beside
a running demo needs no typing; the environment always wins over it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import SettingsError

Role = Literal["viewer", "operator", "approver", "admin"]  # app/roles.py says what each may
DEMO_ENV_FILE = Path(".demo/pitwall.env")


class Settings(BaseSettings):
    """Settings of ingest, worker, web and the CLI. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(
        env_prefix="PITWALL_", env_file=DEMO_ENV_FILE, extra="ignore", frozen=True
    )

    cluster: str = Field(
        default="default", description="Name of the cluster, the first part of every key."
    )
    store_url: str = Field(
        default="sqlite:///pitwall.db", description="SQLAlchemy address of the store."
    )
    kubeconfig: Path | None = Field(
        default=None, description="Kubeconfig; else KUBECONFIG, else the pod's own ServiceAccount."
    )
    prometheus_url: str | None = Field(
        default=None, description="Prometheus that holds dcgm-exporter's series."
    )

    checkpoint_metric: str | None = Field(
        default=None,
        description="PromQL of when jobs last wrote a checkpoint: Unix seconds, labels namespace and job_name.",
    )

    ingest_host: str = "127.0.0.1"
    ingest_port: int = Field(default=8470, ge=0, le=65535)
    token_audience: str = Field(
        default="pitwall", description="Audience an agent's token must be bound to."
    )
    agent_username: str = Field(
        default="system:serviceaccount:pitwall:pitwall-agent",
        description="Whom an agent's token must be of.",
    )
    report_clock_skew_seconds: float = Field(
        default=300.0, description="A report from further in the future is refused with 400."
    )
    report_max_age_seconds: float = Field(
        default=7 * 86400.0, description="A report observed longer ago is refused with 400."
    )

    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8501, ge=0, le=65535)

    web_names: tuple[str, ...] = Field(
        default=(),
        description="Host names by which the page is opened, as JSON; loopback's always are.",
    )
    sign_in: Literal["none", "oidc", "proxy"] = Field(
        default="none",
        description="Who opens the page: none (loopback only), oidc (OpenID Connect), proxy (its verified token).",
    )
    sign_in_secrets: Path | None = Field(
        default=None,
        description="File with Streamlit's [auth] section, for oidc; readable by its owner alone.",
    )
    sign_in_username_claim: str = "email"
    sign_in_username_prefix: str | None = None
    sign_in_groups_claim: str = "groups"
    sign_in_groups_prefix: str | None = None
    sign_in_max_age_seconds: float = Field(
        default=43200.0, gt=0, description="After so long a person signs in again."
    )
    proxy_token_header: str = Field(
        default="Authorization", description="Header in which the proxy hands on the token."
    )
    proxy_issuer: str | None = Field(
        default=None, description="Issuer (iss) of the proxy's tokens; its keys are found there."
    )
    proxy_audience: str | None = Field(
        default=None, description="Audience (aud) that the proxy's tokens must have."
    )
    role_groups: dict[Role, tuple[str, ...]] = Field(
        default={},
        description='Groups that give a role, as JSON: {"operator": ["gpu-oncall"]}; * is everybody.',
    )
    local_user: str | None = Field(
        default=None,
        description="User whose rights count for who is at the page, which has no sign-in.",
    )
    local_groups: tuple[str, ...] = Field(
        default=(), description="That user's groups; a ServiceAccount's own need no naming."
    )
    automatic_user: str = Field(
        default="system:serviceaccount:pitwall:pitwall-automatic",
        description="Account that asks for what automatic mode does.",
    )
    automatic: Path | None = Field(
        default=None,
        description="Rules of automatic mode, a TOML file; without it nothing is done by itself.",
    )
    impersonate: bool = Field(
        default=False, description="The worker writes as the person who asked, not as itself."
    )
    break_glass_user: str = Field(
        default="system:serviceaccount:pitwall:pitwall-break-glass",
        description="Account that the worker acts as to give up a powered-off node's pods.",
    )

    url: str = Field(default="http://127.0.0.1:8470", description="Where the CLI finds /v1.")
    token: str | None = Field(
        default=None, description="The person's bearer token for /v1.", repr=False
    )
    token_file: Path | None = Field(
        default=None, description="File that holds the token; read at each call."
    )

    topology_block_label: str = "network.topology.nvidia.com/spine"
    topology_rack_label: str = "network.topology.nvidia.com/leaf"
    topology_leaf_label: str = Field(
        default="network.topology.nvidia.com/leaf",
        description="Node label that names the leaf switch.",
    )
    topology_power_label: str | None = Field(
        default=None, description="Node label that names the power domain, where there is one."
    )
    rules: Path | None = Field(
        default=None, description="Site's thresholds, a TOML file: docs/rules.md."
    )

    silence_seconds: float = Field(
        default=45.0, description="Without a report for so long a node is Unknown."
    )
    probation_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="A node that was drained or under repair is no spare for so long; 0: no probation.",
    )
    diagnostic_job: Path | None = Field(
        default=None, description="A batch/v1 Job as YAML, that `pitwall diagnose` runs on a node."
    )
    return_needs_diagnostic: bool = Field(
        default=False, description="A node returns from repair only with a diagnostic that passed."
    )
    reoffence_days: float = Field(
        default=30.0, gt=0, description="A node that fails so soon after a return has failed again."
    )
    repair_webhook_url_file: Path | None = Field(
        default=None, description="File with the address that is told of repairs; none: nobody is."
    )
    repair_webhook_secret_file: Path | None = Field(
        default=None, description="File with the secret that signs what is told (HMAC-SHA256)."
    )
    plan_valid_seconds: float = Field(
        default=600.0, description="An approved preview is void after this."
    )
    max_unavailable_nodes_ratio: float = Field(
        default=0.10, ge=0, le=1, description="Stock limit: GPU nodes out of service at once."
    )
    max_drains_per_hour: int = Field(default=10, ge=0, description="Rate limit, absolute.")
    max_drains_per_hour_ratio: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Rate limit as a share of GPU nodes; the lower of both wins.",
    )
    min_usable_nodes_ratio: float = Field(
        default=0.51,
        ge=0,
        le=1,
        description="Floor: so many GPU nodes stay usable, whatever is typed.",
    )
    max_unavailable_block_nodes_ratio: float = Field(
        default=0.25, ge=0, le=1, description="Stock limit within a block of the topology."
    )
    approval_gpus: int | None = Field(
        default=None,
        ge=0,
        description="What stops more GPUs than this needs a second person's approval.",
    )
    approval_valid_seconds: float = Field(
        default=3600.0, gt=0, description="A request that waits for approval is void after this."
    )
    unit_spacing_seconds: float = Field(
        default=0.0, ge=0, description="Pause between the units (workloads) that a drain moves."
    )
    units_at_once: int = Field(
        default=32, ge=1, description="Units that one drain has on the move at once."
    )
    enabled_kinds: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Workload kinds to restart though no real controller has been seen to do it.",
    )
    alerts: Path | None = Field(
        default=None, description="Receivers and routes of alerts, a TOML file: docs/alerts.md."
    )
    alertmanager_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Each Alertmanager peer's address, with commas between; no balancer.",
    )
    alertmanager_token_file: Path | None = Field(
        default=None, description="File with the bearer token for Alertmanager."
    )
    watchdog_url_file: Path | None = Field(
        default=None, description="File with the address outside that is told each minute."
    )
    alert_secrets_dir: Path | None = Field(
        default=None, description="Folder of files that hold the addresses of receivers."
    )
    page_url: str = Field(
        default="http://127.0.0.1:8501", description="Address of the page, for links in messages."
    )
    event_retention_days: int = Field(default=90, ge=1)
    history_retention_days: int = Field(default=14, ge=1)

    @field_validator("enabled_kinds", "alertmanager_urls", mode="before")
    @classmethod
    def _split_names(cls, given: object) -> object:
        """Names with commas between them."""
        return tuple(given.replace(",", " ").split()) if isinstance(given, str) else given


def read_settings() -> Settings:
    """The settings of this process, read once.

    Raises SettingsError with the variable's name when a value can't be used.
    """
    return _settings()


@lru_cache(maxsize=1)
def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "PITWALL_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"{variable} can't be used: {first['msg']} (it is {first.get('input')!r}); correct it and start again."
        ) from error
