"""A service account's key as an endpoint's credential: what is taken from its JSON, and nothing else of it."""

from __future__ import annotations

import msgspec


class ServiceAccount(msgspec.Struct, frozen=True, tag_field="type", tag="service_account"):
    """`project` is the account's own. Addresses that the JSON names are not read: whoever gives us a credential does not choose
    what we call, and other kinds of Google credentials (which name files, programs and addresses) are refused.
    """

    client_email: str
    private_key: str
    private_key_id: str | None = None
    project: str | None = msgspec.field(name="project_id", default=None)

    def __repr__(self) -> str:
        return "ServiceAccount(...)"  # the key is in no traceback and no log

    @classmethod
    def read(cls, secret: str) -> ServiceAccount:
        """The account of a credential. Raises `ValueError`, which repeats nothing of it."""
        try:
            return msgspec.json.decode(secret, type=cls)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            pass
        raise ValueError(
            "the credential is not the JSON of a service account's key; expected the file that Google gives for one, "
            'with "type": "service_account", client_email and private_key'
        )
