"""The page as text. ``test_page.py`` looks at it in a browser."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from distil.core.errors import IntegrityError
from distil.report.html import render, write_report
from distil.report.read import VERDICTS, read_run
from distil.report.record import RunRecord

from .run_directory_fixture import HOSTILE, change_json, write_run
from .text_run_fixture import write_language_model_run, write_text_classification_run


class Tags(HTMLParser):
    """Collects start tags with their attributes, and checks that they are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


@pytest.fixture(scope="module")
def page(record: RunRecord) -> str:
    return render(record)


@pytest.fixture(scope="module")
def tags(page: str) -> Tags:
    return Tags(page)


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("</style>")[1]))


def test_tags_are_closed_in_order(tags: Tags) -> None:
    assert tags.open == []


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run")
    path = write_report(root)
    assert path == root / "report.html"
    assert path.read_text(encoding="utf-8") == render(read_run(root))
    assert not list(root.glob("*.tmp"))
    assert not list(root.glob(".*"))


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run")
    (root / "verdict.json").unlink()
    with pytest.raises(IntegrityError, match="distil run"):
        write_report(root)
    assert not (root / "report.html").exists()


def test_the_same_record_gives_the_same_bytes(record: RunRecord, page: str) -> None:
    assert render(record) == page


def test_there_is_no_script_no_link_out_and_no_style_attribute(tags: Tags) -> None:
    for tag, attributes in tags.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or tag != "img"
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_allows_nothing_but_this_style_and_pictures_in_the_page(page: str) -> None:
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    parts = {part.strip() for part in policy[1].replace("&#39;", "'").split(";")}
    assert parts == {
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_a_hostile_class_name_is_text(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_gives_a_page(tmp_path: Path, verdict: str) -> None:
    page = write_report(write_run(tmp_path / "run", verdict=verdict)).read_text(encoding="utf-8")
    assert re.search(rf'<h1 class="verdict [^"]*">{verdict}</h1>', page)
    Tags(page)


def test_the_smallest_run_gives_a_page_without_empty_sections(bare_record: RunRecord) -> None:
    page = render(bare_record)
    for absent in ("exports", "temperature", "inherited", "classes"):
        assert f'id="{absent}"' not in page
        assert f'href="#{absent}"' not in page


def test_a_run_in_which_no_arm_has_a_teacher_gives_a_page(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", verdict="NOT TESTED", gallery=False)
    change_json(root / "verdict.json", distilled=None)
    assert "no arm learned from a teacher" in write_report(root).read_text(encoding="utf-8")


def test_every_link_of_the_contents_leads_somewhere(page: str) -> None:
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets
    assert targets <= set(re.findall(r' id="([^"]+)"', page))


def test_every_chart_has_a_title_a_description_and_a_table(page: str, tags: Tags) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.DOTALL)
    assert len(charts) == 10
    for chart in charts:
        assert re.search(r"<title id=[^>]*>\S", chart)
        assert re.search(r"<desc id=[^>]*>\S", chart)
    for key in re.findall(r'<svg class="chart"[^>]*aria-labelledby="([^"]*)"', page):
        assert all(page.count(f'id="{each}"') == 1 for each in key.split())
    figures = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == len(charts)
    assert all("<table" in figure for figure in figures)
    others = [attributes for tag, attributes in tags.tags if tag == "svg" and attributes.get("class") != "chart"]
    assert others
    assert all(attributes.get("aria-hidden") == "true" for attributes in others)


def test_the_first_screen_says_it_all(page: str) -> None:
    first = text_of(page.split('<nav class="contents"')[0])
    for words in ("BEATS", "Distillation helped", "percentage points", "Students had 100 labels, the teacher 539"):
        assert words in first
    for words in ("teacher", "distilled", "scratch", "label-smoothing", "36.4", "12.3", "Accuracy"):
        assert words in first


def test_37_the_teacher_flag_is_the_first_line(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run")
    change_json(root / "verdict.json", teacher_flag="The teacher is no better than scratch.")
    text = text_of(write_report(root).read_text(encoding="utf-8")).strip()
    assert text.startswith("Read this first. The teacher is no better than scratch.")


def test_a_speed_up_that_is_not_claimed_appears_nowhere(tmp_path: Path, page: str) -> None:
    assert "4.12 times" in page
    shy = write_report(write_run(tmp_path / "run", claimed=False)).read_text(encoding="utf-8")
    assert "4.12 times" not in shy
    assert "3.80 to 4.40" not in shy
    assert "faster than the teacher" not in shy
    assert "not claimed" in shy
    assert "the intervals of the two medians overlap" in shy


def test_recipe_environment_and_hashes_are_there(page: str, record: RunRecord) -> None:
    assert record.data["fingerprint"] in page
    assert "AMD EPYC 7B13" in page
    assert "permuted: true" in page
    for stage in record.manifest["stages"].values():
        assert all(path in page and digest in page for path, digest in stage["files"].items())


def test_33_the_differences_between_arms_are_shown(page: str) -> None:
    assert "objective.<wbr>soft-targets.<wbr>temperature" in page


def test_the_page_stays_small(page: str) -> None:
    assert len(page.encode()) < 400_000


def test_names_from_the_run_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", class_names=['"><script>alert(1)</script>', "</style>", "</table>", "a&b"])
    change_json(root / "environment.json", cpu="<script>alert(2)</script>")
    change_json(root / "verdict.json", teacher_flag="</p><script>alert(3)</script>", notes=["<b onclick=x>"])
    page = write_report(root).read_text(encoding="utf-8")
    tags = Tags(page)
    assert not [tag for tag, attributes in tags.tags if tag == "script" or "onclick" in attributes]
    assert tags.open == []


def test_a_page_of_texts_speaks_of_texts(text_record: RunRecord) -> None:
    page = render(text_record)
    text = text_of(page)
    for words in (
        "over 1,078 test texts",
        "Latency: median of one text of 32 tokens, ONNX fp32.",
        "References cost no training of a network.",
        "majority class : Always the most frequent class.",
        "columns sentence",
        "median length 98 characters",
        "tokenizer of student 30,522 entries, 64 tokens a text at most, 5e5e5e5e5e5e",
    ):
        assert words in text
    assert "image" not in text
    assert "Test example" not in page
    assert Tags(page).open == []


def test_a_hostile_text_is_text(text_record: RunRecord) -> None:
    page = render(text_record)
    assert HOSTILE not in page
    assert "<blockquote>A quiet film that &lt;img src=x onerror=alert(1)&gt; nobody" in page
    assert not [tag for tag, _ in Tags(page).tags if tag == "img"]


def test_the_two_texts_of_a_pair_are_two_lines(tmp_path: Path) -> None:
    root = write_text_classification_run(tmp_path / "run", columns=("premise", "hypothesis"))
    page = write_report(root).read_text(encoding="utf-8")
    assert "<blockquote>Not bad at all.\nWorth a second look?</blockquote>" in page
    assert "white-space: pre-line" in page
    assert "over 1,078 test pairs" in text_of(page)


def test_slices_have_their_section(text_record: RunRecord, page: str) -> None:
    found = render(text_record)
    assert 'id="slices"' in found
    section = text_of("</style>" + found.split('<section id="slices">')[1].split("</section>")[0])
    assert "negation 212 91.0% 83.0% 86.0% 84.0% +5.0 +1.4 to +8.8" in section
    assert "slices" not in page


def test_a_task_without_classes_has_no_empty_section(language_record: RunRecord) -> None:
    page = render(language_record)
    for absent in ("confusion", "classes", "slices", "calibration", "inherited", "temperature", "exports"):
        assert f'id="{absent}"' not in page
        assert f'href="#{absent}"' not in page
    assert 'id="measures"' in page
    assert 'href="#measures"' in page
    assert not re.search(r">[^<]*(ECE|[Cc]alibration)[^<]*<", page.split("</style>")[1].split('id="words"')[0])
    assert Tags(page).open == []


def test_a_language_model_is_judged_by_what_is_lower(language_record: RunRecord) -> None:
    text = text_of(render(language_record))
    assert re.search(r"BEATS Distillation helped: .* 0\.0\d{3} bits per byte lower 95% interval 0\.0\d{3} to", text)
    assert "Control minus distilled in bits per byte, positive where the distilled student is better" in text
    assert "Small and low is good" in text
    assert "Perplexity per token" in text


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_on_a_language_model_gives_a_page(tmp_path: Path, verdict: str) -> None:
    page = write_report(write_language_model_run(tmp_path / "run", verdict=verdict)).read_text(encoding="utf-8")
    assert re.search(rf'<h1 class="verdict [^"]*">{verdict}</h1>', page)
    assert Tags(page).open == []
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
