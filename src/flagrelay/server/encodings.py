"""What a client accepts: `Accept-Encoding`, as far as it concerns us."""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named with a weight above zero (RFC 9110). Who names nothing gets nothing compressed."""
    for each in accept_encoding.split(","):
        name, _, parameters = each.partition(";")
        if name.strip().lower() in {"gzip", "x-gzip"}:
            return not _is_zero(parameters)
    return False


def _is_zero(parameters: str) -> bool:
    name, _, weight = parameters.replace(" ", "").lower().partition("=")
    return name == "q" and weight.startswith("0") and not weight.strip("0.")
