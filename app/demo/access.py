"""Who the person at the demo is: the user of the simulated cluster's kubeconfig."""

from pathlib import Path

import yaml

from app.demo.errors import DemoError


def person_token(kubeconfig: Path) -> str:
    """The bearer token of the kubeconfig's user. Raises DemoError when there is none."""
    try:
        document = yaml.safe_load(kubeconfig.read_text())
        return str(document["users"][0]["user"]["token"])
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise DemoError(
            f"The simulator's {kubeconfig} holds no user with a token ({error!r}); start the demo again."
        ) from error
