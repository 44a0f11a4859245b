"""An interface of a controller for those who may look, and nothing else."""

from ipmpi.controller.interfaces import Interface
from ipmpi.protocol import messages


def only_looks(message):
    """Commands that read names; and all requests of the types below."""
    return not isinstance(message, messages.Command) or message.method in ("pull", "keys")


READER = Interface(
    "reader",
    frozenset({messages.Command, messages.GetIds, messages.QueueStatus, messages.ClusterInfo, messages.Goodbye}),
    permits=only_looks,
)
