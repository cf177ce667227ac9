"""The report's page, opened in a browser that nobody sees: every category, every picture."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from workflows import finished, study

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LARGEST = 15 * 2**20  # bytes


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a tiny study with timing and a profile."""
    folder = tmp_path_factory.mktemp("page")
    content: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"name": "birds", "classes": 2, "train_per_class": 8, "val_per_class": 3, "test_per_class": 4},
        "backbones": ["vgg_small"],
        "methods": {"cam": {}, "eil": {"gamma": [0.6, 0.8], "sigma": [0.5]}},
        "seeds": 2,
        "controls": [],
        "recipe": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "resize": 36, "crop": 32},
    }
    arguments = study(folder, content)
    targets = ["all", "timing", "profile"]
    finished(folder, *targets, *arguments, timeout=560)
    finished(folder, *targets, "--report", "report.html", *arguments)
    return folder / "report.html"


@pytest.mark.slow
def test_the_page_shows_every_category_and_picture(page: Path) -> None:
    assert page.stat().st_size < LARGEST
    assert "https://" not in "".join(line for line in page.read_text().splitlines() if "<script src" in line)
    if BROWSER is None:
        pytest.skip("no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 900})
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        seen: dict[str, list[str]] = {}
        for category in ("Figures", "Tables", "Timing", "Profiles"):
            tab.goto(page.as_uri())
            tab.get_by_text("weakly supervised object localization on birds").wait_for()
            tab.get_by_text(category, exact=True).first.click()
            rows = tab.locator("table tbody tr")
            rows.first.wait_for()
            seen[category] = [row.inner_text().strip() for row in rows.all()]
            for row in rows.all():
                row.locator("a").first.click()
                if category == "Figures":
                    picture = tab.locator("img[src^='data:image/png']").first
                    picture.wait_for()
                    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
                else:
                    tab.locator("iframe, object, embed").first.wait_for()
        browser.close()
    assert not errors
    assert {"thresholds", "errors", "improvement", "ablation_vgg_small_eil"} <= set(seen["Figures"])
    assert {"main", "grid", "comparisons"} <= set(seen["Tables"])
    assert len(seen["Timing"]) == len(seen["Profiles"]) == 1
