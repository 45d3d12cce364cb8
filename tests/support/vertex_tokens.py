"""Google's token server, as far as a service account needs it: an assertion in, an access token out."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestServer


class TokenServer:
    """Takes every assertion and keeps it; `refuses` makes it take none."""

    def __init__(self) -> None:
        self.token = "ya29.simulated-access-token"
        self.assertions: list[str] = []
        self.refuses = False
        app = web.Application()
        app.router.add_post("/token", self._token)
        self._server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self._server.make_url("/token"))

    async def __aenter__(self) -> TokenServer:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._server.close()

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        if self.refuses:
            said = {"error": "invalid_grant", "error_description": "account of-the-token-server not found"}
            return web.json_response(said, status=400)
        self.assertions.append(str(form["assertion"]))
        return web.json_response({"access_token": self.token, "expires_in": 3599, "token_type": "Bearer"})
