"""`flagrelay openapi`."""

import click

from flagrelay.control.openapi import document_json


@click.command(epilog="Example: flagrelay openapi > flagrelay-openapi.json")
def openapi() -> None:
    """Print the OpenAPI document of the control API, as relays serve it under /admin/v1/openapi.json."""
    click.echo(document_json(), nl=False)
