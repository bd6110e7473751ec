"""What a person's word on an incident or a node means, and how it is asked for."""

from typing import NamedTuple


class Wording(NamedTuple):
    """The dialog of one request kind. in_parameters: the worker reads the words as `text`, else as the reason."""

    title: str
    meaning: str
    label: str
    placeholder: str
    button: str
    needs_text: bool = True
    in_parameters: bool = True


WORDINGS = {
    "resolve": Wording(
        "Resolve",
        "It is closed, and those who read it later see why. A new fault opens a new incident.",
        "What ended it",
        "GPU 3 reseated, node back in service",
        "Resolve the incident",
    ),
    "pause": Wording(
        "Pause all operations",
        "Nothing new begins and running drains take no further step, automatic ones too, until somebody ends the pause. "
        "Cancel, uncordon and undo go on.",
        "Why",
        "Change of cables in block b until 15:00",
        "Pause",
    ),
    "unpause": Wording(
        "End the pause",
        "Drains that were held go on where they stopped.",
        "Why it is over",
        "Cables are in",
        "End the pause",
    ),
    "reset_limit": Wording(
        "Reset the limit",
        "Automation may act again. What the limit counts is not changed by this; of the rate, the count begins anew.",
        "What you looked at",
        "Ten nodes of rack 4 lost power, it is back",
        "Reset it",
    ),
    "reopen": Wording(
        "Reopen",
        "It is open again until a person resolves it.",
        "Why it is not over",
        "The job still hangs",
        "Reopen the incident",
    ),
    "repair": Wording(
        "Send to repair:",
        "The node stays cordoned and counts as under repair until it is given back.",
        "What is to be repaired",
        "GPU 3 to be replaced, case 4711",
        "Send to repair",
    ),
    "return": Wording(
        "Give back:",
        "A repaired node is uncordoned and goes on probation; one on probation is in full service at once.",
        "Reason",
        "GPU 3 replaced, diagnostics passed",
        "Give back",
        needs_text=False,
        in_parameters=False,
    ),
}
