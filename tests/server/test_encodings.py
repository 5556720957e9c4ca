import pytest

from flagrelay.server.encodings import accepts_gzip


@pytest.mark.parametrize(
    "header", ["gzip", "GZIP", "x-gzip", "br, gzip", "deflate, gzip;q=1.0", "gzip;q=0.001", "gzip ; q=0.5,*;q=0"]
)
def test_who_names_gzip_gets_it(header: str) -> None:
    assert accepts_gzip(header)


@pytest.mark.parametrize(
    "header", ["", "br", "*", "gzip;q=0", "gzip; q=0.000", "identity", "gzipped", "deflate, gzip;Q=0.0"]
)
def test_who_does_not_or_refuses_it_gets_none(header: str) -> None:
    assert not accepts_gzip(header)
