"""What errors of the NATS client mean to us: the only place that knows them."""

from __future__ import annotations

import nats.errors as core
from nats.js import errors as js

from holdfast_model.errors import HoldfastError, NotFound, Permanent, Stale, Unavailable

# Codes of the server's errors.json.
STREAM_FULL = {10077, 10122}
TOO_LARGE = 10054
WRONG_STREAM = 10060
NOT_THE_LAST = 10071


def bus_error(error: BaseException, doing: str) -> HoldfastError:
    """The error to raise for what the client raised while ``doing`` (a short clause for the message)."""
    match error:
        case HoldfastError():
            return error
        case core.NoRespondersError():
            return Unavailable(f"{doing}: nobody answers there", retry_after=1.0, hint="is the service running?")
        case js.NoStreamResponseError():
            return Unavailable(
                f"{doing}: no stream takes this subject", retry_after=1.0, hint="has the set-up job run?"
            )
        case core.MaxPayloadError():
            return Permanent(f"{doing}: the message is larger than the server takes")
        case js.APIError() if error.err_code == TOO_LARGE:
            return Permanent(f"{doing}: the message is larger than the stream takes")
        case js.APIError() if error.err_code == WRONG_STREAM:
            return Permanent(f"{doing}: another stream holds this subject")
        case js.APIError() if error.err_code == NOT_THE_LAST:
            return Stale(f"{doing}: somebody published there meanwhile")
        case js.APIError() if error.err_code in STREAM_FULL:
            return Unavailable(f"{doing}: the stream is full", retry_after=5.0, hint="are its readers running?")
        case js.NotFoundError():
            return NotFound(f"{doing}: {error.description or 'not found'}")
        case js.APIError() if (error.code or 500) < 500:
            return Permanent(f"{doing}: {error.description} (code {error.err_code})")
        case js.APIError():
            return Unavailable(f"{doing}: {error.description or 'JetStream does not answer'}", retry_after=1.0)
        case core.BadSubjectError() | core.BadHeaderError() | core.AuthorizationError():
            return Permanent(f"{doing}: {error}")
        case core.Error() | TimeoutError() | OSError():
            return Unavailable(f"{doing}: {str(error) or 'no answer in time'}", retry_after=1.0)
        case _:
            raise TypeError(f"not an error of the bus: {error!r}") from error
