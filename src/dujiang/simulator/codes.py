"""The vendor's codes: HTTP status, name and text of each answer that isn't a success.

Two families share the wire. Business codes (five digits, and two of the shop's) come in the vendor's own envelope;
gateway codes (six digits) come from the API gateway in front of it.
"""

from dataclasses import dataclass
from typing import Final

SUCCESS: Final = 10000


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the vendor's table."""

    number: int
    http: int
    message: str
    name: str = ""  # the gateway's word for it; business codes have none


_TABLE: Final = (
    Code(50411, 400, "Pre Img Risk Not Pass"),
    Code(50412, 400, "Text Risk Not Pass"),
    Code(50413, 400, "Post Text Risk Not Pass"),
    Code(50513, 400, "Pre Video Risk Not Pass"),
    Code(50514, 400, "Pre Audio Risk Not Pass"),
    Code(50518, 400, "Pre Copyright Risk Not Pass"),
    Code(50511, 400, "Post Img Risk Not Pass"),
    Code(50519, 400, "Post Copyright Risk Not Pass"),
    Code(50516, 400, "Post Video Risk Not Pass"),
    Code(50517, 400, "Post Audio Risk Not Pass"),
    Code(50512, 400, "Post Text Risk Not Pass"),
    Code(50520, 400, "Risk Internal Error"),
    Code(50521, 400, "Antidirt Internal Error"),
    Code(50522, 400, "Image Copyright Internal Error"),
    Code(50429, 429, "Request Has Reached API Limit, Please Try Later"),
    Code(50430, 429, "Request Has Reached API Concurrent Limit, Please Try Later"),
    Code(50500, 500, "Internal Error"),
    Code(50501, 500, "Internal RPC Error"),
    Code(50400, 401, "Access Denied"),
    Code(50215, 400, "Input invalid for this service"),
    Code(50204, 400, "Service Not Enabled"),
    Code(30403, 400, "Feature Not Purchased"),
    Code(30404, 400, "Feature Not Found"),
    Code(50207, 400, "Image Decode Error"),
    Code(50218, 400, "Resource Risk Not Pass"),
    Code(50220, 400, "Image Download Error"),
    Code(100002, 400, "The request is missing a required parameter.", "MissingParameter"),
    Code(100006, 400, "The request's timestamp is outside the allowed window.", "InvalidTimestamp"),
    Code(100008, 404, "Could not find operation for this action and version.", "InvalidActionOrVersion"),
    Code(100009, 401, "The access key is missing or unknown.", "InvalidAccessKey"),
    Code(100010, 401, "The request signature we calculated does not match.", "SignatureDoesNotMatch"),
    Code(100012, 403, "The user lacks a policy for this action.", "LackPolicy"),
    Code(100013, 403, "Access is denied.", "AccessDenied"),
    Code(100014, 500, "Internal error.", "InternalError"),
    Code(100015, 502, "Failed to connect to the service.", "FailToConnect"),
    Code(100016, 504, "The service timed out.", "ServiceTimeout"),
    Code(100018, 429, "The flow limit is exceeded.", "FlowLimitExceeded"),
    Code(100019, 503, "The service is temporarily unavailable.", "ServiceUnavailableTemp"),
    Code(100023, 502, "Internal service error.", "InternalServiceError"),
    Code(100024, 400, "The authorization header is invalid.", "InvalidAuthorization"),
    Code(100025, 400, "The credential is invalid.", "InvalidCredential"),
    Code(100026, 401, "The security token is invalid.", "InvalidSecretToken"),
)
CODES: Final = {code.number: code for code in _TABLE}

OUTPUT_MODERATION: Final = frozenset({50511, 50512, 50516, 50517, 50519})
"""The finished picture was refused: these appear on a poll, and a fresh submit may pass."""

ENDS_A_JOB: Final = OUTPUT_MODERATION | {
    *(50411, 50412, 50413, 50513, 50514, 50518),
    *(50520, 50521, 50522),
    *(50500, 50501),
    *(50207, 50215, 50218, 50220),
}
"""As the answer to a poll these tell how a job ended; every other code says nothing about the job."""


class Refused(Exception):
    """This request is answered with a code."""

    def __init__(self, code: int | Code, message: str = "", *, gateway_shaped: bool = False) -> None:
        self.code = CODES[code] if isinstance(code, int) else code
        super().__init__(f"{self.code.number} {message}".rstrip())
        self.message = message or self.code.message
        self.gateway_shaped = gateway_shaped or bool(self.code.name)
