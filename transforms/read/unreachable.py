"""Why no broker can be reached, and what to do about it, from librdkafka's own words."""

from __future__ import annotations

from typing import Final

from transforms.model.errors import GuaranteeError, TryAgainLater

NAMED_REASON_SECONDS: Final = 15.0
"""How long a connection may fail for a reason that the client names, with no broker up.

Longer than a leader takes to change, shorter than silence is waited for: a name that cannot be
resolved or a closed port is seldom mended within the minute, and the next run comes anyway.
"""

_HINTS: Final = (
    (
        "Failed to resolve",
        "Correct the name, or this machine's DNS. If --bootstrap_servers does not give that name,"
        " the broker does: correct its advertised.listeners.",
    ),
    ("refused", "Start the broker, or correct host and port."),
    (
        "certificate",
        "Set ssl.ca.location to the authority that has signed the broker's certificate, in the"
        " --consumer_config file, and use a host name that the certificate has.",
    ),
    (
        "handshake",
        "The client is set to TLS, and the listener does not answer as one: give the TLS port, or"
        " set security.protocol to PLAINTEXT or SASL_PLAINTEXT in the --consumer_config file.",
    ),
    (
        "ApiVersion",
        "So a TLS listener ends a plaintext connection: if it is one, set security.protocol to SSL"
        " or SASL_SSL in the --consumer_config file; else look at the broker.",
    ),
)
_PLAINTEXT_ENDED: Final = "APIVERSION_QUERY"
_OTHERS: Final = (
    "Start the broker, correct the address, or, where it wants TLS or SASL, set security.protocol"
    " and what belongs to it in the --consumer_config file."
)
_STAYS: Final = ("certificate", "wrong version number")
"""No broker that is away says this: waiting does not help."""


def unreachable(servers: str, waited: float, reason: str | None) -> GuaranteeError:
    """The error after `waited` seconds without an answer; reason: librdkafka's words, if any.

    TryAgainLater, but for what only a person can mend.
    """
    kind = GuaranteeError if reason and any(text in reason for text in _STAYS) else TryAgainLater
    return kind(
        f"--bootstrap_servers={servers}: no answer within {waited:.0f} s"
        f" ({reason or 'no connection is refused, and nothing is answered'}). {_hint(reason)}"
    )


def _hint(reason: str | None) -> str:
    words = (reason or "").replace(_PLAINTEXT_ENDED, "ApiVersion")
    return next((hint for text, hint in _HINTS if text in words), _OTHERS)
