"""Who may ask the page's server: the page itself. Any other page that is open in the same browser could try to."""

from __future__ import annotations

from typing import Any

OURS = ("127.0.0.1", "localhost")


class OwnPageOnly:
    """ASGI: answers 403 to a request that another page has made.

    Such a one says so in Origin; or, where its own name has been made to lead to this machine, in Host. Programs that run on
    this machine say what they like, they are not kept out.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or own(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This server answers its own page only.\n"})


def own(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request is of the page: one Host, this machine's, and the same in Origin if there is one."""
    hosts, origins = ([value.decode("latin-1") for key, value in headers if key == name] for name in (b"host", b"origin"))
    return len(hosts) == 1 and hosts[0].rsplit(":", 1)[0] in OURS and set(origins) <= {f"http://{hosts[0]}"}
