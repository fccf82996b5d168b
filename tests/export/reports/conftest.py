"""Small datasets, their pages, and a browser that looks at them."""

import pytest

from export.reports import dataset_page
from export.reports.options import Options
from tests.export.reports import browser as browsers
from tests.export.reports import made_datasets

PLAIN = [f"image_{k:02}" for k in range(16)]
HOSTILE = [
    "<script>alert(1)</script>",  # a folder, as it has a slash
    "<img src=x onerror=alert(2)>",
    "\"'quotes'\" onload=alert(3)",
    "{{7*7}} {% raw %}",
    "two\nlines",
    "\u202egnp.exe",
    "--data-->]]><!--",
    "&lt;&#39;&amp;",
    "$x^2$ \\frac{1}{2}",
    "%s %d {0} ${y}",
    "name with a \x1b[31m colour",
    "長い名前" * 8,
]
HOSTILE_CLASSES = [
    "</title></svg><script>alert(4)</script>",
    '"><b onclick=alert(5)>{{7*7}}</b>',
    "\u202eleft\nright $x_$",
    "'--><style>*{display:none}</style>",
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium; `browser.open(path)` shows a page. Skips where it is not installed."""
    with browsers.started(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A dataset of 16 images, four classes and three splits."""
    classes = ["background", "vessel", "bone", "cell"]
    options = ["--split=train:0.5,valid:0.25,test:0.25", "--num_shards=2"]
    return made_datasets.prepare(tmp_path_factory.mktemp("plain"), PLAIN, classes, *options)


@pytest.fixture(scope="session")
def hostile_dataset(tmp_path_factory):
    """A dataset whose files and classes bear names that would break a careless page."""
    folder = tmp_path_factory.mktemp("hostile")
    return made_datasets.prepare(folder, HOSTILE, HOSTILE_CLASSES, "--split=train:0.5,test:0.5")


@pytest.fixture(scope="session")
def pages(dataset, hostile_dataset, tmp_path_factory):
    """Name -> the file of a dataset's page."""
    folder = tmp_path_factory.mktemp("pages")
    made = {"plain": dataset, "hostile": hostile_dataset}
    for name, path in made.items():
        text = dataset_page.page(str(path), Options())
        (folder / f"{name}.html").write_bytes(text.encode())
    return {name: folder / f"{name}.html" for name in made}
