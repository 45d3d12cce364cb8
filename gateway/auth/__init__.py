"""JSON Web Tokens: the issuers an installation trusts, their keys, and what a token has to be to be taken."""
