"""The helper that opens self-contained HTML: it passes what is self-contained and fails what is not."""

import pytest

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def test_a_self_contained_file_opens(open_html, tmp_path):
    file = tmp_path / "with a space.html"
    file.write_text(
        f'<title>x</title><img alt="" src="{PIXEL}"><script>document.title = "ran"</script>', encoding="utf-8"
    )
    with open_html(file) as page:
        assert page.title() == "ran"


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="other.css">',
        '<img alt="" src="http://example.org/x.png">',
        '<script>fetch("http://127.0.0.1:9/x").catch(() => null)</script>',
        "<script>throw new Error('x')</script>",
    ],
)
def test_a_request_or_an_error_is_noticed(open_html, tmp_path, body):
    file = tmp_path / "x.html"
    file.write_text(f"<title>x</title>{body}", encoding="utf-8")
    with pytest.raises(AssertionError), open_html(file):
        pass
