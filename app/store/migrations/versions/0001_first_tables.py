"""The first release's tables, and the triggers that make two of them append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# INSERT OR REPLACE would delete a row without firing its DELETE trigger, hence the trigger before INSERT.
_SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: rows are never changed'); END
    """,
    """
    CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
    WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: rows are never replaced'); END
    """,
    """
    CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
    WHEN NOT EXISTS (
        SELECT 1 FROM retention_mark
        WHERE cluster = OLD.cluster AND table_name = '{table}' AND OLD.at < kept_from
    )
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: only rows past retention are dropped'); END
    """,
)

_POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND EXISTS (
            SELECT 1 FROM retention_mark
            WHERE cluster = OLD.cluster AND table_name = '{table}' AND OLD.at < kept_from
        ) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION '{table} is append-only: rows are never changed, and dropped past retention only'
            USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {table}_append_only()
    """,
    """
    CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()
    """,
)


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "alert",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("annotations", sa.JSON(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("incident_id", sa.String(), nullable=True),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("escalated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("inhibited_by", sa.String(), nullable=True),
        sa.Column("silenced_by", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_index(
        "alert_by_start",
        "alert",
        ["cluster", "started_at"],
        unique=False,
    )
    op.create_index(
        "alert_one_open",
        "alert",
        ["cluster", "fingerprint"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "alert_delivery",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("receiver", sa.String(), nullable=False),
        sa.Column("group_key", sa.String(), nullable=False),
        sa.Column("alert_ids", sa.JSON(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("deduplication_key", sa.String(), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_index(
        "alert_delivery_by_key",
        "alert_delivery",
        ["cluster", "receiver", "deduplication_key"],
        unique=False,
    )
    op.create_index(
        "alert_delivery_due",
        "alert_delivery",
        ["cluster", "state", "next_attempt_at"],
        unique=False,
    )
    op.create_table(
        "alert_group",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("receiver", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notified_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "receiver", "key"),
    )
    op.create_table(
        "alert_receiver",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("matchers", sa.JSON(), nullable=False),
        sa.Column("send_resolved", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "name"),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("target_uid", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_entry_by_time", "audit_entry", ["cluster", "at"], unique=False)
    op.create_table(
        "automatic_action",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("episode", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("finding", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("acts", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("together", sa.Integer(), nullable=False),
        sa.Column("world", sa.String(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "rule", "episode"),
    )
    op.create_index(
        "automatic_action_by_time",
        "automatic_action",
        ["cluster", "updated_at"],
        unique=False,
    )
    op.create_table(
        "event_day",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "day", "node", "code"),
    )
    op.create_table(
        "finding",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("episode", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("gpu_uuid", sa.String(), nullable=True),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("changes_health", sa.Boolean(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("pod_uids", sa.String(), nullable=True),
        sa.Column("explanation", sa.String(), nullable=True),
        sa.Column("look_next", sa.String(), nullable=True),
        sa.Column("closed_by", sa.String(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "episode"),
    )
    op.create_index("finding_by_node", "finding", ["cluster", "node", "opened_at"], unique=False)
    op.create_index("finding_by_opening", "finding", ["opened_at"], unique=False)
    op.create_index(
        "finding_open",
        "finding",
        ["cluster", "node"],
        unique=False,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "fleet_frame",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("topology_version", sa.String(), nullable=False),
        sa.Column("encoding", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "metric"),
    )
    op.create_table(
        "gpu",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=True),
        sa.Column("pci_bus_id", sa.String(), nullable=True),
        sa.Column("serial", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("health", sa.String(), nullable=False),
        sa.Column("health_reason", sa.String(), nullable=False),
        sa.Column("health_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pod_uid", sa.String(), nullable=True),
        sa.Column("temperature_celsius", sa.Float(), nullable=True),
        sa.Column("memory_temperature_celsius", sa.Float(), nullable=True),
        sa.Column("temperature_margin_celsius", sa.Float(), nullable=True),
        sa.Column("power_watts", sa.Float(), nullable=True),
        sa.Column("power_limit_watts", sa.Float(), nullable=True),
        sa.Column("energy_joules_total", sa.Float(), nullable=True),
        sa.Column("sm_clock_hertz", sa.BigInteger(), nullable=True),
        sa.Column("memory_clock_hertz", sa.BigInteger(), nullable=True),
        sa.Column("clocks_event_reasons", sa.BigInteger(), nullable=True),
        sa.Column("gpu_utilization_ratio", sa.Float(), nullable=True),
        sa.Column("memory_utilization_ratio", sa.Float(), nullable=True),
        sa.Column("memory_used_bytes", sa.BigInteger(), nullable=True),
        sa.Column("memory_total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("ecc_corrected_total", sa.BigInteger(), nullable=True),
        sa.Column("ecc_uncorrected_total", sa.BigInteger(), nullable=True),
        sa.Column("remapped_correctable", sa.BigInteger(), nullable=True),
        sa.Column("remapped_uncorrectable", sa.BigInteger(), nullable=True),
        sa.Column("remap_pending", sa.Boolean(), nullable=True),
        sa.Column("remap_failure", sa.Boolean(), nullable=True),
        sa.Column("pcie_generation", sa.BigInteger(), nullable=True),
        sa.Column("pcie_width", sa.BigInteger(), nullable=True),
        sa.Column("pcie_replay_total", sa.BigInteger(), nullable=True),
        sa.Column("nvlink_active_links", sa.BigInteger(), nullable=True),
        sa.Column("nvlink_crc_errors_total", sa.BigInteger(), nullable=True),
        sa.Column("fabric_state", sa.BigInteger(), nullable=True),
        sa.Column("recovery_action", sa.BigInteger(), nullable=True),
        sa.Column("last_xid", sa.BigInteger(), nullable=True),
        sa.Column("last_xid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("missing", sa.String(), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "uuid"),
        postgresql_with={"fillfactor": 45},
    )
    op.create_index("gpu_by_node", "gpu", ["cluster", "node"], unique=False)
    op.create_table(
        "gpu_history",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("hour_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("chunk", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "hour_at", "node"),
    )
    op.create_index(
        "gpu_history_by_node", "gpu_history", ["cluster", "node", "hour_at"], unique=False
    )
    op.create_table(
        "gpu_hour",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("chunk", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "day", "hour", "node"),
    )
    op.create_table(
        "gpu_minute",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("minute_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("writer", sa.String(), nullable=False),
        sa.Column("chunk", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "minute_at", "node", "writer"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "health_event",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("gpu_uuid", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("episode", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("health_event_by_episode", "health_event", ["cluster", "episode"], unique=False)
    op.create_index("health_event_by_node", "health_event", ["cluster", "node", "at"], unique=False)
    op.create_index("health_event_by_time", "health_event", ["cluster", "at"], unique=False)
    op.create_table(
        "incident",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("jobs", sa.JSON(), nullable=False),
        sa.Column("gpus_hurt", sa.Integer(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.Column("first", sa.JSON(), nullable=False),
        sa.Column("consequences", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("certainty", sa.String(), nullable=True),
        sa.Column("certainty_ratio", sa.Float(), nullable=True),
        sa.Column("flaps", sa.Integer(), nullable=False),
        sa.Column("flapping", sa.Boolean(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.String(), nullable=True),
        sa.Column("resolution", sa.String(), nullable=True),
        sa.Column("held_open_by", sa.String(), nullable=True),
        sa.Column("merged_into", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_index("incident_by_opening", "incident", ["cluster", "opened_at"], unique=False)
    op.create_index(
        "incident_one_open",
        "incident",
        ["cluster", "scope", "subject"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "incident_event",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "incident_event_by_incident",
        "incident_event",
        ["cluster", "incident_id", "at"],
        unique=False,
    )
    op.create_table(
        "job",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("api_version", sa.String(), nullable=False),
        sa.Column("team", sa.String(), nullable=True),
        sa.Column("queue", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("gang", sa.Boolean(), nullable=False),
        sa.Column("wanted_pods", sa.Integer(), nullable=False),
        sa.Column("running_pods", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checkpoint_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "uid"),
    )
    op.create_table(
        "lease",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "name"),
    )
    op.create_table(
        "node",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("uid", sa.String(), nullable=True),
        sa.Column("block", sa.String(), nullable=True),
        sa.Column("rack", sa.String(), nullable=True),
        sa.Column("leaf", sa.String(), nullable=True),
        sa.Column("power_domain", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("driver_version", sa.String(), nullable=True),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column("gpu_count", sa.BigInteger(), nullable=True),
        sa.Column("gpu_count_expected", sa.BigInteger(), nullable=True),
        sa.Column("gpu_set", sa.BigInteger(), nullable=True),
        sa.Column("gpu_allocatable", sa.BigInteger(), nullable=True),
        sa.Column("gpu_requested", sa.BigInteger(), nullable=True),
        sa.Column("health", sa.String(), nullable=False),
        sa.Column("health_reason", sa.String(), nullable=False),
        sa.Column("health_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_by", sa.String(), nullable=True),
        sa.Column("reported_health", sa.String(), nullable=True),
        sa.Column("reported_reason", sa.String(), nullable=True),
        sa.Column("planned", sa.String(), nullable=True),
        sa.Column("planned_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("service_reason", sa.String(), nullable=False),
        sa.Column("service_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owes_probation", sa.Boolean(), nullable=True),
        sa.Column("clean_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("repair_by", sa.String(), nullable=True),
        sa.Column("repair_note", sa.String(), nullable=True),
        sa.Column("kubernetes_ready", sa.Boolean(), nullable=True),
        sa.Column("unschedulable", sa.Boolean(), nullable=True),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kubernetes_observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "name"),
        postgresql_with={"fillfactor": 45},
    )
    op.create_table(
        "node_diagnostic",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("node_uid", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("requested_groups", sa.String(), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_index(
        "node_diagnostic_by_node",
        "node_diagnostic",
        ["cluster", "node", "requested_at"],
        unique=False,
    )
    op.create_table(
        "node_repair",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_by", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("incident_id", sa.String(), nullable=True),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("returned_by", sa.String(), nullable=True),
        sa.Column("call", sa.String(), nullable=False),
        sa.Column("call_attempts", sa.Integer(), nullable=False),
        sa.Column("call_next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("call_error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_index(
        "node_repair_by_call",
        "node_repair",
        ["cluster", "call", "call_next_at"],
        unique=False,
    )
    op.create_index(
        "node_repair_by_node",
        "node_repair",
        ["cluster", "node", "opened_at"],
        unique=False,
    )
    op.create_table(
        "operation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("plan_hash", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("choices", sa.JSON(), nullable=False),
        sa.Column("memory", sa.JSON(), nullable=False),
        sa.Column("nodes_state", sa.JSON(), nullable=False),
        sa.Column("workloads_state", sa.JSON(), nullable=False),
        sa.Column("pods_total", sa.Integer(), nullable=False),
        sa.Column("pods_done", sa.Integer(), nullable=False),
        sa.Column("cancel_requested_by", sa.String(), nullable=True),
        sa.Column("author_groups", sa.JSON(), nullable=True),
        sa.Column("cancel_groups", sa.JSON(), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "operation_by_state", "operation", ["cluster", "ended_at", "created_at"], unique=False
    )
    op.create_table(
        "operation_node",
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id", "cluster", "node"),
    )
    op.create_index(
        "operation_node_one_open",
        "operation_node",
        ["cluster", "node"],
        unique=True,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open"),
    )
    op.create_table(
        "operation_step",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("target_uid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_operation_step_operation_id"), "operation_step", ["operation_id"], unique=False
    )
    op.create_index(
        "operation_step_once",
        "operation_step",
        ["operation_id", "name", "target", "target_uid"],
        unique=True,
    )
    op.create_table(
        "pause",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("cluster"),
    )
    op.create_table(
        "permission",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "username", "verb", "resource"),
    )
    op.create_table(
        "limit_mark",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("tripped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reset_by", sa.String(), nullable=True),
        sa.Column("reset_reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "name"),
    )
    op.create_table(
        "placement",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("pod_uid", sa.String(), nullable=False),
        sa.Column("gpu_uuid", sa.String(), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "pod_uid", "gpu_uuid", "from_at"),
    )
    op.create_index("placement_by_job", "placement", ["cluster", "job_uid"], unique=False)
    op.create_index("placement_by_node", "placement", ["cluster", "node", "to_at"], unique=False)
    op.create_table(
        "pod",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("job_uid", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "uid"),
    )
    op.create_index("pod_by_job", "pod", ["cluster", "job_uid"], unique=False)
    op.create_index("pod_by_node", "pod", ["cluster", "node"], unique=False)
    op.create_table(
        "rank",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("pod_uid", sa.String(), nullable=False),
        sa.Column("pod_name", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "job_uid", "rank"),
    )
    op.create_table(
        "report_stream",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("spool_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "node", "spool_id"),
        postgresql_with={"fillfactor": 45},
    )
    op.create_table(
        "request",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=False),
        sa.Column("refusal_code", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=True),
        sa.Column("author_groups", sa.JSON(), nullable=True),
        sa.Column("author_role", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("request_by_state", "request", ["cluster", "state", "created_at"], unique=False)
    op.create_index("request_once", "request", ["cluster", "idempotency_key"], unique=True)
    op.create_table(
        "reservation",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cluster", "operation_id", "node"),
    )
    op.create_table(
        "retention_mark",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("kept_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "table_name"),
    )
    op.create_table(
        "silence",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("matchers", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.Column("alertmanager_id", sa.String(), nullable=True),
        sa.Column("origin", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "id"),
    )
    op.create_table(
        "source_status",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("last_ok_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "source"),
    )
    op.create_table(
        "summary_block",
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("block", sa.String(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "block"),
    )

    sqlite = op.get_bind().dialect.name == "sqlite"
    for table in ("audit_entry", "health_event"):
        for statement in _SQLITE_TRIGGERS if sqlite else _POSTGRESQL_TRIGGERS:
            op.execute(statement.format(table=table))


def downgrade() -> None:
    """Drop every table."""
    if op.get_bind().dialect.name != "sqlite":
        for table in ("audit_entry", "health_event"):
            op.execute(f"DROP FUNCTION {table}_append_only() CASCADE")
    for table in (
        "alert",
        "alert_delivery",
        "alert_group",
        "alert_receiver",
        "audit_entry",
        "automatic_action",
        "event_day",
        "finding",
        "fleet_frame",
        "gpu",
        "gpu_history",
        "gpu_hour",
        "gpu_minute",
        "health_event",
        "incident",
        "incident_event",
        "job",
        "lease",
        "node",
        "node_diagnostic",
        "node_repair",
        "operation",
        "operation_node",
        "operation_step",
        "placement",
        "pod",
        "rank",
        "report_stream",
        "request",
        "pause",
        "limit_mark",
        "permission",
        "reservation",
        "retention_mark",
        "silence",
        "source_status",
        "summary_block",
    ):
        op.drop_table(table)
