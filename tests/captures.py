"""Where recorded captures lie: beside the checkout, or where PITWALL_CAPTURES says. Tests skip without them."""

import os
from pathlib import Path

RECORDED = Path(os.environ.get("PITWALL_CAPTURES", Path(__file__).parents[2] / "shared" / "data"))
