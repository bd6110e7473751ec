"""The long-running processes. Each is imported only when it is started."""

import typer

from app.settings import read_settings


def register(program: typer.Typer) -> None:
    program.command("agent")(agent)
    program.command("ingest")(ingest)
    program.command("worker")(worker)
    program.command("web")(web)
    program.command("migrate")(migrate)


def agent() -> None:
    """Poll this node's GPUs and kernel log and push reports (PITWALL_NODE, PITWALL_INGEST_URL, ...)."""
    from collectors.agent import run

    run()


def ingest() -> None:
    """Take agents' reports and serve /v1."""
    from app.ingest.server import run

    run(read_settings())


def worker() -> None:
    """Watch Kubernetes and carry operations out; one is active, the others stand by."""
    from app.worker import run

    run(read_settings())


def web() -> None:
    """Serve the page."""
    from app.ui.server import run

    run(read_settings())


def migrate() -> None:
    """Bring the store's schema to this version."""
    from app.store.engine import migrate as migrate_store

    url = read_settings().store_url
    migrate_store(url)
    typer.echo("The store's schema is up to date.")
